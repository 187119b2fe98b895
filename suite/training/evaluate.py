"""Evaluation: every example of a split once, sums and counts, and a check that none was dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from suite.records.schema import TestUnits
from tasks.base import Batch, Split, Task


class IncompleteEvaluation(RuntimeError):
    """An evaluation did not see as many examples as its split has."""


class UnitTally:
    """Sums and counts of each example, added up by unit at the end. Collects nothing where the task has no units."""

    def __init__(self, task: Task) -> None:
        """Takes a loaded task."""
        self._task, self._units = task, task.test_units()
        self._rows = list[Tensor]()

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Collects a batch of the test split, in order.

        Args:
            outputs: the model's, fp32.
            batch: the batch that they were computed from.
        """
        if self._units is not None:
            self._rows.append(self._task.unit_sums(outputs, batch).cpu())

    def recorded(self) -> TestUnits | None:
        """The units as a record holds them.

        Returns:
            None where the task has none, or a value is not finite.

        Raises:
            ValueError: the task has given units to another number of examples than were evaluated.
        """
        if self._units is None:
            return None
        unit, rows = self._units.of_example, torch.cat(self._rows).double().numpy()
        if len(unit) != len(rows):
            raise ValueError(f"{self._task.name}: test_units() has {len(unit)} examples, {len(rows)} were evaluated")
        sums, counts = (np.bincount(unit, column) for column in rows.T)
        if not np.isfinite([sums, counts]).all():
            return None
        digits = ([float(f"{value:.10g}") for value in column] for column in (sums, counts))
        return TestUnits(word=self._units.word, **dict(zip(("sums", "counts"), digits, strict=True)))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bf16 autocast for "bf16", and for "auto" on a CUDA GPU that is fast at it; otherwise nothing."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bf16" or (precision == "auto" and fast):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Sets the model to evaluation inside the block, and back to its mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    workers: int = 0,
    tally: UnitTally | None = None,
) -> tuple[dict[str, float], int]:
    """The metrics of a split and how many examples were evaluated. Raises IncompleteEvaluation if some were not.
    `tally` receives the primary metric of each example.
    """
    totals: dict[str, tuple[float, float]] = {}
    seen = 0
    with eval_mode(model):
        for batch in task.eval_batches(split, batch_size, workers):
            batch = batch.to(device)
            with autocast(device, precision):
                outputs = model(batch.inputs)
            outputs = outputs.float()
            for name, (total, count) in task.measure(outputs, batch).items():
                old_total, old_count = totals.get(name, (0.0, 0.0))
                totals[name] = (old_total + total, old_count + count)
            if tally is not None:
                tally.add(outputs, batch)
            seen += batch.size
    if seen != task.n_examples(split):
        raise IncompleteEvaluation(
            f"{task.name}: {seen} examples of {split} were evaluated, it has {task.n_examples(split)}"
        )
    return task.summarise(totals), seen
