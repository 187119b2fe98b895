"""A run of each domain on the device: Triton against PyTorch, bf16, equal bits in two deterministic runs, resuming."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from suite.records.schema import Record
from suite.training.deterministic import mode
from suite.training.run import resume, start
from tests.gpu.place import INTERPRETED
from tests.suite.tiny import RECALL, TASKS, tiny_config
from tests.suite.training.run_helpers import at_step
from tests.suite.training.test_resume import equal_runs

MIXERS = ("softmax", "fem", "fem-simple-gla", "hyperglu")
#: Relative difference of fp32 losses between two implementations, within six steps.
TOLERANCE = 2e-3
RANDOM = ("dropout=0.2", "drop_path=0.3", "ema=0.9")
every_task = pytest.mark.parametrize("task", [*TASKS, "mqar"])


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """Neither tracking nor pictures, and a runs folder of this test."""
    monkeypatch.setenv("SUITE_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


def run(task: str, mixer: str, device: torch.device, *sets: str) -> Record:
    config = tiny_config(task, mixer, "dim=64", *(RECALL if task == "mqar" else ()), *sets)
    made = start(config, data_dir=None, device=str(device), again=True).record
    assert made.status == "finished", made.error
    return made


@every_task
@pytest.mark.parametrize("mixer", MIXERS)
def test_triton_and_pytorch_give_the_same_losses(task, mixer, device, monkeypatch):
    fast = run(task, mixer, device, "precision=fp32")
    monkeypatch.setenv("SUITE_TRITON_KERNELS", "off")
    slow = run(task, mixer, device, "precision=fp32")
    losses, expected = ([loss for _, loss in made.loss_trace] for made in (fast, slow))
    assert losses == pytest.approx(expected, rel=TOLERANCE)
    if not INTERPRETED:
        assert "triton" in fast.implementations.values() or mixer == "softmax"
        assert "triton" not in " ".join(slow.implementations.values())


@every_task
def test_a_run_in_bf16_finishes(task, device):
    assert run(task, "fem", device, "precision=bf16").precision == "bf16"


@every_task
@pytest.mark.parametrize("mixer", MIXERS)
def test_two_deterministic_runs_give_the_same_bits(task, mixer, device):
    with mode.using(True):
        one, two = (run(task, mixer, device, *RANDOM) for _ in range(2))
    assert one.deterministic is True
    assert equal_runs(one, two)


@every_task
def test_a_resumed_run_equals_the_uninterrupted_one(task, device, monkeypatch):
    config = tiny_config(task, "fem", *(RECALL if task == "mqar" else ()), *RANDOM)
    with mode.using(True):
        whole = start(config, data_dir=None, device=str(device), again=True).record
        with monkeypatch.context() as patch:
            at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
            stopped = start(config, data_dir=None, device=str(device), again=True).record
        assert equal_runs(resume(stopped.id, data_dir=None, device=str(device)).record, whole)
