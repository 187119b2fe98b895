"""Gradient accumulation: a batch in parts trains as the whole one does, and is refused where it cannot."""

from __future__ import annotations

import pytest
import torch

import tasks
from suite.models.resolve import resolve_run
from suite.training.run import start
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tasks.base import Batch
from tests.suite.tiny import tiny_arguments, tiny_config
from tests.suite.training.test_resume import equal_runs
from tests.suite.training.test_start_from_a_worker import Recorder


@pytest.mark.parametrize("task", ["sotu", "fashion-mnist", "mqar"])
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_has_the_gradient_of_the_whole_one(task, parts, tmp_path):
    """To the rounding of sums, also where rows score different numbers of tokens."""
    sets = ("dim=32", "model.heads=2", "depth=1", "ffn_width=88", "batch_size=8", "dropout=0")
    made = resolve_run(task=task, mixer="softmax", scale="board", sets=[*sets, f"accumulate={parts}", "precision=fp32"])
    its_task = tasks.get(task)(made.config.data)
    its_task.load()
    batch = next(its_task.train_batches(0, 8))
    batch = Batch(batch.inputs.clone(), batch.targets.clone())  # they may share memory
    if not batch.targets.is_floating_point() and batch.targets.ndim > 1:
        batch.targets[:5, 2:] = -100
    losses, gradients = [], []
    for accumulate in (1, parts):
        torch.manual_seed(0)
        model = made.candidate.build(made.config, its_task, made.candidate.plan(made.config, its_task.spec))
        config = made.config.model_copy(
            update={"train": made.config.train.model_copy(update={"accumulate": accumulate, "clip": 1e9})}
        )
        recorder = Recorder(Stop())
        trainer = Trainer(
            model, its_task, config, device=torch.device("cpu"), run_dir=tmp_path, observer=recorder, stop=recorder.stop
        )
        losses.append(trainer.accumulate_gradients(batch))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_accumulation_changes_no_identity_without_it_and_shares_a_board_with_it():
    usual, parts = tiny_config("fashion-mnist"), tiny_config("fashion-mnist", "softmax", "accumulate=4")
    assert "accumulate" not in usual.recorded()["train"]
    assert tiny_config("fashion-mnist", "softmax", "accumulate=1").identity == usual.identity
    assert parts.identity != usual.identity
    assert parts.group == usual.group


def test_a_run_with_accumulation_resumes_bit_for_bit_and_is_close_to_the_whole_one(monkeypatch):
    import signal

    from suite.training.run import resume
    from tests.suite.training.test_resume import interrupted_at

    whole = start(tiny_config("sotu", "fem", "accumulate=4"), data_dir=None, device="cpu").record
    stopped = interrupted_at(monkeypatch, 3, signal.SIGTERM, "accumulate=4", task="sotu").record
    assert equal_runs(resume(stopped.id, data_dir=None, device="cpu").record, whole)
    large = start(tiny_config("sotu", "fem"), data_dir=None, device="cpu").record
    assert [loss for _, loss in whole.loss_trace] == pytest.approx([loss for _, loss in large.loss_trace], rel=1e-4)


def test_a_model_with_statistics_of_the_batch_refuses_parts_in_one_line(suite, runs):
    ended = suite(*tiny_arguments("household-power", "fem", "accumulate=2"))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "accumulate" in ended.err
    assert list(runs.iterdir()) == []


def test_more_parts_than_rows_are_refused_in_one_line(suite):
    ended = suite("show", "--task", "sotu", "--mixer", "fem", "--set", "batch_size=8", "--set", "accumulate=9")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "accumulate 9 must be at most batch_size 8" in ended.err
