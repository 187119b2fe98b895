"""Commands in the processes that torchrun starts: which of them print an error, and which commands are refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from suite.cli.app import _command
from suite.training.parallel import environment

RUN = ("run", "--task", "sotu", "--mixer", "softmax")


@pytest.fixture
def rank(monkeypatch):
    """Gives this process the environment of one of two."""

    def become(number: int) -> None:
        place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": 1}
        for name, value in {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))

    return become


@pytest.mark.parametrize("name", sorted({*_command().commands} - {"run"}))
def test_every_command_but_run_is_refused_in_one_line_of_one_process(suite, rank, name):
    words = {"list": ("list", "tasks"), "data": ("data", "info")}.get(name, (name,))
    ends = []
    for number in (0, 1):
        rank(number)
        ends.append(suite(*words))
    assert [end.code for end in ends] == [2, 2]
    (line,) = ends[0].err.splitlines()
    assert "would run 2 times, once in each process of torchrun" in line
    assert ends[1].err == ""


@pytest.mark.parametrize("more", [("--steps", "none"), ("--no-such-option",), ("--devices", "3")], ids="-".join)
def test_what_all_processes_of_a_machine_refuse_is_printed_once(suite, rank, more):
    ends = []
    for number in (0, 1):
        rank(number)
        ends.append(suite(*RUN, *more))
    assert [end.code for end in ends] == [2, 2]
    assert len(ends[0].err.splitlines()) == 1
    assert ends[1].err == ""


@pytest.mark.parametrize("number", [0, 1])
def test_a_shell_with_the_variables_of_a_cluster_runs_every_command(suite, rank, number, monkeypatch):
    rank(number)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert suite("list", "tasks").code == 0
    refused = suite("show", "no-such-run")
    assert refused.code == 2
    assert "no-such-run" in refused.err


def test_what_one_process_alone_runs_into_is_printed(rank):
    rank(1)
    assert environment.reports(MemoryError())
    assert environment.reports(PermissionError(13, "denied", "/data"))


def test_a_process_prints_its_own_errors_once_the_others_are_found(rank, monkeypatch):
    rank(1)
    error = ValueError("other data than rank 0")
    assert not environment.reports(error)
    monkeypatch.setattr(environment, "HAVE_MET", met := threading.Event())
    met.set()
    assert environment.reports(error)
    assert not environment.reports(environment.MachineError("too few GPUs"))
    rank(0)
    assert environment.reports(environment.MachineError("too few GPUs"))


@pytest.mark.slow
def test_two_processes_without_gpus_refuse_cuda_in_one_line(tmp_path):
    words = [sys.executable, "-m", "suite", *RUN, "--devices", "2", "--device", "cuda"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).resolve().parents[3]
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "need as many GPUs, it has 0" in line
