"""The races of a plan as a job array: the example batch script under the stand-in for Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from suite.records.collection import read_all
from tests.faults.slurm import NODE_LOST, ROOT, TIME_LIMIT, Job
from tests.suite.tiny import tiny_sets

SCRIPT = ROOT / "examples" / "slurm" / "sweep.sbatch"
SETS = (*tiny_sets("sotu"), "steps=120", "evals=30", "lr=1e-3")


def suite(*words: str) -> str:
    """Runs a command in a process of its own; its standard output."""
    ended = subprocess.run([sys.executable, "-m", "suite", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Path:
    """The plan of two races of one run each, and variables of the second job of its array."""
    variables = {"SUITE_HOME": str(tmp_path / "runs"), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1"}
    for name, value in {**variables, "PYTHONPATH": str(ROOT), "SLURM_ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(name, value)
    sets = [word for value in SETS for word in ("--set", value)]
    given = ["--task", "sotu", "--mixer", "softmax", "--mixer", "linear", "--seeds", "1", "--device", "cpu", *sets]
    path = tmp_path / "plan.txt"
    suite("sweep", *given, "--threads", "1", "--plan", str(path))
    return path


@pytest.mark.slow
def test_a_job_of_an_array_carries_out_its_line_whatever_ends_it(plan, tmp_path):
    attempts = Job(SCRIPT, [str(plan)], tmp_path / "runs", tmp_path).run([TIME_LIMIT, NODE_LOST])
    log = (tmp_path / "job.log").read_text()
    assert [each.code for each in attempts] == [138, -9, 0], log
    (made,) = read_all().records
    assert (made.mixer, made.status) == ("linear", "finished")
    assert len(made.resumed_at) == 2


@pytest.mark.slow
def test_a_line_that_has_ended_does_nothing_and_leaves_the_plan(plan, tmp_path):
    job = Job(SCRIPT, [str(plan)], tmp_path / "runs", tmp_path)
    assert [each.code for each in job.run([])] == [0]
    (made,) = read_all().records
    assert [each.code for each in job.run([])] == [0]
    assert read_all().records == (made,)
    words = plan.read_text("utf-8").splitlines()[1].split()
    (race,) = json.loads(suite(*words[1:], "--dry-run", "--json"))["races"]
    assert (race["done"], race["to_run"]) == (1, 0)


def test_an_array_that_is_longer_than_the_plan_is_named(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    (attempt,) = Job(SCRIPT, [str(plan)], tmp_path / "runs", tmp_path).run([])
    assert attempt.code == 2
    assert "the array is longer than the plan" in (tmp_path / "job.log").read_text()
