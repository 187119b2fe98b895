"""Two processes train what one trains: losses, metrics, checkpoints, and the end of a killed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.golden.capture import run_arguments

pytestmark = pytest.mark.scale
#: fp32 rounding over six steps; a wrong weight of one rank, another seed or local batch norm differ by more than 1e-4.
CLOSE = 1e-5
CASES = {
    "sotu": ("sotu", "fem"),
    "fashion-mnist": ("fashion-mnist", "softmax", "--set", "train.accumulate=2"),
    "household-power": ("household-power", "fem", "--set", "train.ema=0.9"),
    "mqar": ("mqar", "softmax"),
    "constant sequence, hybrid": ("sotu", "random-qk", "--hybrid", "2"),
}


def command(home: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "SUITE_HOME": str(home), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "suite", *arguments], environment


def suite(home: Path, *arguments: str) -> dict[str, Any]:
    """The record of a run, in processes of its own."""
    words, environment = command(home, *arguments)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["identity"] == expected["identity"]
    assert found["n_evaluated"] == expected["n_evaluated"]
    assert [loss for _, loss in found["loss_trace"]] == pytest.approx(
        [loss for _, loss in expected["loss_trace"]], rel=CLOSE
    )
    for split in ("valid", "test"):
        assert found["metrics"][split]["loss"] == pytest.approx(expected["metrics"][split]["loss"], rel=CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one(tmp_path, case):
    task, mixer, *more = CASES[case]
    arguments = [*run_arguments(task, mixer), *more]
    alone = suite(tmp_path, *arguments)
    assert alone["parallel"] is None
    for name, strategy in (("ddp", "ddp"), ("fsdp", "fsdp2")):
        together = suite(tmp_path, *arguments, "--force", "--devices", "2", "--parallel", name)
        assert together["parallel"] == {"world_size": 2, "strategy": strategy}
        assert_same(together, alone)
        assert gradient_norms(tmp_path, together) == pytest.approx(gradient_norms(tmp_path, alone), rel=CLOSE)


def gradient_norms(home: Path, record: dict[str, Any]) -> list[float]:
    """Before clipping. AdamW's steps, and so the losses, hardly depend on the gradient's scale."""
    lines = (home / record["id"] / "tracking.jsonl").read_text().splitlines()
    values = [json.loads(line).get("values", {}) for line in lines]
    norms = [each["train/grad_norm"] for each in values if "train/grad_norm" in each]
    assert len(norms) == 6
    return norms


FSDP = ("--devices", "2", "--parallel", "fsdp")


@pytest.mark.parametrize(
    ("first", "second"), [(FSDP, ()), ((), FSDP), (FSDP, FSDP)], ids=["2-to-1", "1-to-2", "2-to-2"]
)
def test_a_checkpoint_is_resumed_by_another_number_of_ranks(tmp_path, first, second):
    arguments = [*run_arguments("household-power", "softmax"), "--set", "train.ema=0.9"]
    whole = suite(tmp_path, *arguments, *first)
    forget_the_end(next(tmp_path.glob("*/record.json")).parent)
    resumed = suite(tmp_path, *arguments, "--resume", "auto", *second)
    assert resumed["resumed_at"] == [4]
    assert (resumed["parallel"] is None) == (not second)
    assert_same(resumed, whole)


def forget_the_end(folder: Path) -> None:
    """Leaves what a run killed after its second of three validations had left."""
    (folder / "record.json").unlink()
    of_several = sorted(folder.glob("checkpoint-*.dcp"))
    if of_several:
        shutil.rmtree(of_several[-1])
    for name in ("checkpoint.pt", "checkpoint.best.pt"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_job_and_the_run_is_resumed(tmp_path, victim):
    longer = {"steps=6": "steps=100000", "evals=3": "evals=5000"}
    arguments = [longer.get(word, word) for word in run_arguments("sotu", "softmax")]
    words, environment = command(tmp_path, *arguments, "--devices", "2")
    job = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: bool(list(tmp_path.glob("*/checkpoint-*.dcp/content.pt"))), 120)
        ranks = {each.environ().get("RANK"): each for each in psutil.Process(job.pid).children()}
        ranks[str(victim)].send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert job.wait(60) != 0
        wait_for(lambda: not any(each.is_running() for each in ranks.values()), 60 - (time.monotonic() - began))
    finally:
        job.kill()
        job.communicate()
    (written,) = tmp_path.glob("*/record.json")
    record = json.loads(written.read_text())
    assert record["status"] == "failed"
    assert f"rank {victim} ended without a message" in record["error"]
    assert_it_continues(written.parent, arguments)


def assert_it_continues(folder: Path, arguments: list[str]) -> None:
    """`--resume auto` continues the run with two ranks; it is then asked to stop, and stops at a checkpoint."""
    before = newest_step(folder)
    words, environment = command(folder.parent, *arguments, "--resume", "auto", "--devices", "2")
    job = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: newest_step(folder) > before, 120)
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 143
    finally:
        job.kill()
        job.communicate()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "interrupted"
    assert record["resumed_at"] == [before]


def newest_step(folder: Path) -> int:
    return max(int(path.parent.stem.split("-")[1]) for path in folder.glob("checkpoint-*.dcp/content.pt"))


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


def test_a_batch_that_does_not_divide_is_refused_in_one_line(tmp_path):
    words, environment = command(tmp_path, *run_arguments("sotu", "softmax"), "--devices", "3")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "8 examples does not divide among 3" in line
    assert not list(tmp_path.glob("*/config.json"))
