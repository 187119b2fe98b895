"""Real sweeps: processes that train, a sweep that is killed and continues, workers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from suite.records.collection import read_all
from tests.suite.tiny import tiny_sets
from tests.suite.training.test_image_runs import TINY
from tests.tasks.images.image_files import write_folder

ROOT = Path(__file__).resolve().parents[3]
ARGUMENTS = [
    *("sweep", "--task", "sotu", "--mixer", "softmax", "--seeds", "0-1", "--set", "lr=1e-3,3e-3"),
    *(word for value in tiny_sets("sotu", "evals=1") for word in ("--set", value)),
]


def sweep(runs: Path, *more: str, arguments: Sequence[str] = ARGUMENTS) -> subprocess.Popen[str]:
    environment = {**os.environ, "SUITE_HOME": str(runs), "SUITE_TRACKING": "off", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "suite", *arguments, *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=runs.parent,
    )


def wait_for_records(runs: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while len(list(runs.glob("*/record.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_sweep_killed_at_any_time_continues_and_repeats_no_finished_run(runs):
    killed = sweep(runs)
    wait_for_records(runs, 2, killed)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "workers outlive their sweep"
    before = {path: path.read_bytes() for path in runs.glob("*/record.json")}
    out, err = sweep(runs, "--json").communicate()
    (race,) = json.loads(out)["races"]
    assert race["chosen"] in race["rates"], err
    assert {path: path.read_bytes() for path in before} == before
    finished = [(made.config.train.lr, made.seed) for made in read_all().records]
    assert len(finished) == len(set(finished)) == len(race["runs"])


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_attempt_and_no_run(runs):
    process = sweep(runs, "--json", "--jobs", "1")
    wait_for_records(runs, 1, process)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    workers[0].kill()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["races"][0]["chosen"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_sweep_that_is_stopped_ends_with_the_signals_code_and_says_how_to_continue(runs, number, code):
    """Also where a scheduler signals all processes of the job."""
    process = sweep(runs, "--set", "steps=200", "--set", "evals=50")
    wait_for_records(runs, 1, process)
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "the same command continues" in err
    assert {made.status for made in read_all().records} <= {"finished", "interrupted"}


@pytest.mark.slow
def test_runs_of_a_sweep_load_files_in_processes_of_their_own(runs, tmp_path):
    folder = write_folder(tmp_path / "data", ("boots", "coats"), all=20)
    arguments = ["sweep", "--task", "folder", "--mixer", "softmax", "--seeds", "1", "--set", "lr=1e-3"]
    arguments += [word for value in ("patch=16", "image_size=32", *TINY) for word in ("--set", value)]
    out, err = sweep(runs, "--data-dir", str(folder), "--workers", "2", "--json", arguments=arguments).communicate()
    assert out, err
    assert [made.status for made in read_all().records] == ["finished"], err
