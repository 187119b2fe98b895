"""Two ranks train what one process trains: losses, metrics, checkpoints, and the end of a killed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.golden.capture import run_arguments
from tests.scale.joint_runs import CASES, CHANGES, STRATEGIES

pytestmark = pytest.mark.scale
ROOT = Path(__file__).resolve().parents[2]
#: fp32 rounding over six steps; a wrong weight of one rank, another seed or local batch norm differ by more than 1e-4.
CLOSE = 1e-5
JOB_S = 60  # within which a job has ended after a rank was killed


def environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": paths, "SUITE_HOME": str(home), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Any]:
    """The runs of `joint_runs`, by two ranks that torchrun started."""
    folder = tmp_path_factory.mktemp("joint")
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.scale.joint_runs"]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(folder / "results.json")],
        env=environment(folder / "runs"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def losses(record: dict[str, Any]) -> list[float]:
    return [loss for _, loss in record["loss_trace"]]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["status"] == expected["status"] == "finished"
    assert found["identity"] == expected["identity"]
    assert found["n_evaluated"] == expected["n_evaluated"]
    assert len(losses(expected)) == 6
    assert losses(found) == pytest.approx(losses(expected), rel=CLOSE)
    for split in ("valid", "test"):
        assert found["metrics"][split]["loss"] == pytest.approx(expected["metrics"][split]["loss"], rel=CLOSE)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one(results, case, strategy):
    alone, together = results[case]["None"], results[case][strategy]
    assert alone["parallel"] is None
    assert together["parallel"] == {"world_size": 2, "strategy": strategy}
    assert_same(together, alone)
    assert len(alone["norms"]) == 6
    assert together["norms"] == pytest.approx(alone["norms"], rel=CLOSE)
    units, expected = together["test_units"], alone["test_units"]
    assert units["sums"] == pytest.approx(expected["sums"], rel=CLOSE)  # each once, in the order of one process


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_run_the_kernels_of_one(results, case, strategy):
    assert results[case][strategy]["implementations"] == results[case]["None"]["implementations"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_is_resumed_by_another_number_of_ranks(results, change):
    runs = results[f"resumed {change}"]
    assert runs["resumed"]["resumed_at"] == [4]
    assert (runs["resumed"]["parallel"] is None) == (CHANGES[change][1] is None)
    assert_same(runs["resumed"], runs["whole"])


def test_with_dropout_ranks_repeat_their_losses_and_differ_from_one_process(results):
    runs = results["dropped"]
    assert losses(runs["first"]) == losses(runs["ddp"])
    assert losses(runs["fsdp2"]) == pytest.approx(losses(runs["ddp"]), rel=CLOSE)
    assert losses(runs["ddp"]) != pytest.approx(losses(runs["None"]), rel=1e-3)
    resumed = results["dropped, resumed"]
    assert losses(resumed["resumed"]) == losses(resumed["whole"])  # each rank continues its own stream


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_deterministic_ranks_check_their_first_step_and_keep_their_losses(results, strategy):
    made = results["deterministic"][strategy]
    assert (made["status"], made["deterministic"]) == ("finished", True)
    assert losses(made) == losses(results["dropped"][strategy])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_noise_on_one_rank_lets_no_deterministic_run_begin(results, strategy):
    made = results["noisy"][strategy]
    assert (made["status"], losses(made)) == ("failed", [])
    assert "is not deterministic: the gradient of " in made["error"]


def long_run() -> list[str]:
    """Arguments of a run that lasts until it is ended."""
    longer = {"steps=6": "steps=100000", "evals=3": "evals=5000"}
    return [longer.get(word, word) for word in run_arguments("sotu", "softmax")]


class Running:
    """A command that trains with two ranks until it is ended."""

    def __init__(self, home: Path, *more: str) -> None:
        self.home = home
        self.command = subprocess.Popen(
            [sys.executable, "-m", "suite", *long_run(), "--devices", "2", *more],
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.ranks: dict[str | None, psutil.Process] = {}

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.command.kill()
        for rank in self.ranks.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                rank.kill()
        self.command.wait()

    def reaches(self, step: int) -> None:
        """Waits for a checkpoint after that step."""
        wait_for(lambda: newest_step(self.home) > step, 120)
        self.ranks = {each.environ().get("RANK"): each for each in psutil.Process(self.command.pid).children()}
        assert sorted(map(str, self.ranks)) == ["0", "1"]

    def ends(self, seconds: float) -> int:
        """The exit code, once the command and both ranks have ended."""
        began = time.monotonic()
        code = self.command.wait(seconds)
        wait_for(lambda: not any(alive(each) for each in self.ranks.values()), seconds - (time.monotonic() - began))
        return code


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def newest_step(home: Path) -> int:
    found = (int(path.parent.stem.split("-")[1]) for path in home.glob("*/checkpoint-*.dcp/content.pt"))
    return max(found, default=0)


def written(home: Path) -> dict[str, Any]:
    (path,) = home.glob("*/record.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_job_and_the_run_is_resumed(tmp_path, victim):
    with Running(tmp_path) as job:
        job.reaches(0)
        job.ranks[str(victim)].send_signal(signal.SIGKILL)
        assert job.ends(JOB_S) != 0
    record = written(tmp_path)
    assert record["status"] == "failed"
    assert f"rank {victim} ended without a message" in record["error"]
    before = newest_step(tmp_path)
    with Running(tmp_path, "--resume", "auto") as job:
        job.reaches(before)
        if victim == 0:
            job.ranks["1"].send_signal(signal.SIGUSR1)  # a warning that reaches one rank alone
            assert job.ends(JOB_S) == 128 + signal.SIGUSR1
        else:
            job.command.kill()  # the ranks notice that nobody waits for them
            job.ends(JOB_S)
    record = written(tmp_path)
    assert record["status"] == "interrupted"
    assert record["resumed_at"] == [before]
    assert newest_step(tmp_path) > before


def test_a_lost_machine_with_the_first_ranks_leaves_a_record(tmp_path):
    """Four ranks that believe to be on two machines, of which the first one is lost."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [start_on_machine(rank, port, tmp_path) for rank in range(4)]
    try:
        wait_for(lambda: newest_step(tmp_path) > 0, 180)
        for rank in ranks[:2]:
            rank.kill()
        assert [rank.wait(JOB_S) for rank in ranks[2:]] == [1, 1]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    record = written(tmp_path)
    assert record["status"] == "failed"
    assert "rank 0 ended without a message" in record["error"]


def start_on_machine(rank: int, port: int, home: Path) -> subprocess.Popen[bytes]:
    """One of four ranks, two on a machine."""
    place = {"RANK": rank, "LOCAL_RANK": rank % 2, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-m", "suite", *long_run()],
        env=environment(home) | {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_batch_that_does_not_divide_is_refused_in_one_line(tmp_path):
    words = [sys.executable, "-m", "suite", *run_arguments("sotu", "softmax"), "--devices", "3"]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "8 examples does not divide among 3" in line
    assert not list(tmp_path.glob("*/config.json"))
