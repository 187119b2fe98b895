"""The batches that a run trains on: those of its task and seed, in another order each epoch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import tasks
from suite.config.run_config import RunConfig
from suite.models.resolve import shipped_config
from suite.training.run import start
from suite.training.trainer import Trainer
from tasks.base import Batch
from tests.suite.tiny import TASKS, tiny_config


def trained_on(monkeypatch, config: RunConfig) -> list[Batch]:
    """The batches of a run's steps."""
    seen: list[Batch] = []
    update = Trainer._update
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", lambda self, batch: seen.append(batch) or update(self, batch))  # type: ignore[func-returns-value]
        assert start(config, data_dir=None, device="cpu").exit_code == 0
    return seen


@pytest.mark.parametrize("task", TASKS)
def test_a_run_trains_on_the_batches_of_its_task_and_seed(monkeypatch, task):
    config = tiny_config(task, seed=3)
    its_task = tasks.get(task)(config.data)
    its_task.load()
    wanted = its_task.train_batches(3, config.train.batch_size)
    batches = trained_on(monkeypatch, config)
    assert len(batches) == 6
    for batch in batches:
        expected = next(wanted)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)


@pytest.mark.parametrize("task", ["household-power", "mqar"])
@pytest.mark.slow
def test_two_epochs_are_different_orders_of_the_same_examples(task):
    its_task = tasks.get(task)(shipped_config(task, "board").data)
    its_task.load()
    n = its_task.n_examples("train")
    batches = its_task.train_batches(0, n)
    one, two = (rows(next(batches)) for _ in range(2))
    assert Counter(one) == Counter(two)
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 0.9 * n
    assert rows(next(its_task.train_batches(1, n))) != one  # another seed


def rows(batch: Batch) -> list[bytes]:
    return [
        row.numpy().tobytes() + target.numpy().tobytes()
        for row, target in zip(batch.inputs, batch.targets, strict=True)
    ]
