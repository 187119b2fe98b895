"""Small recall tasks and their tokens as lists, for the tests of the recall tasks."""

from __future__ import annotations

import tasks

FEW = {"train_examples": 96, "valid_examples": 64, "test_examples": 64}
MAD = ("mad-in-context", "mad-noisy", "mad-fuzzy", "mad-memorize", "mad-compress", "mad-copy")


def made(name: str, **options):
    cls = tasks.get(name)
    return cls(cls.Options(**{**FEW, **options}))


def sequences(task, split="train"):
    """Every sequence of a split in order, as lists of tokens and targets."""
    batches = list(task.eval_batches(split, 50))
    return [(x.tolist(), y.tolist()) for batch in batches for x, y in zip(batch.inputs, batch.targets, strict=True)]
