"""What a run asks of its task besides batches, whatever the domain: files to keep, files to use again, a picture."""

from __future__ import annotations

import os
import signal

import pytest
import torch

import tasks
from suite.training.run import resume, start
from tests.suite.tiny import tiny_config
from tests.suite.training.run_helpers import at_step


@pytest.fixture
def calls(monkeypatch):
    """Hooks of an image task that write down in which order they are called."""
    seen: list[str] = []
    cls = tasks.get("fashion-mnist")
    load = cls.load

    def recording_load(self):
        seen.append("load")
        load(self)

    def keep_files(self, folder):
        seen.append("keep")
        (folder / "kept.txt").write_text("vocabulary")

    def use_files(self, folder):
        seen.append("use")
        assert (folder / "kept.txt").read_text() == "vocabulary"

    def plot_examples(self, predict, folder):
        seen.append("plot")
        batch = next(self.eval_batches("test", 2))
        outputs = predict(batch.inputs)
        assert (outputs.shape, outputs.dtype, outputs.requires_grad) == ((2, 10), torch.float32, False)
        (folder / "examples.png").write_bytes(b"picture")
        return folder / "examples.png"

    for name, hook in (
        ("load", recording_load),
        ("keep_files", keep_files),
        ("use_files", use_files),
        ("plot_examples", plot_examples),
    ):
        monkeypatch.setattr(cls, name, hook)
    return seen


@pytest.mark.slow
def test_a_task_of_any_domain_keeps_files_uses_them_and_plots_examples(calls, monkeypatch, runs):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = start(tiny_config("fashion-mnist"), data_dir=None, device="cpu").record
    assert calls[:2] == ["load", "keep"]
    assert not {"use", "plot"} & set(calls)
    calls.clear()
    made = resume(stopped.id, data_dir=None, device="cpu").record
    assert made.status == "finished"
    assert calls[:2] == ["use", "load"]
    assert "keep" not in calls
    assert calls.count("plot") == 1
    assert '"examples.png"' in (runs / made.id / "tracking.jsonl").read_text()
