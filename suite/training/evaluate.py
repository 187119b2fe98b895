"""Evaluation: every example of a split once, sums and counts, and a check that none was dropped; and how fast a model
decodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from backbones.decoder import Decoder
from suite.errors import first_line
from suite.records.schema import TestUnits
from suite.training.parallel.ranks import ALONE, Ranks
from tasks.base import Batch, SampledUnits, Split, Task

#: Tokens that are decoded to time it, and those before that are not timed.
TOKENS, WARM_UP = 64, 4


class IncompleteEvaluation(RuntimeError):
    """An evaluation did not see as many examples as its split has."""


class UnitTally:
    """The primary metric by test unit: sums and counts of each example, added up by unit at the end. Collects nothing
    where the task has no units; a fault in the task's own code costs the units, with a warning, and never the run.
    """

    def __init__(self, task: Task, warn: Callable[[str], None]) -> None:
        """Takes a loaded task, and where warnings go."""
        self._task, self._warn = task, warn
        self._units: SampledUnits | None = None
        self._rows = list[Tensor]()
        with self._guarded():
            self._units = task.test_units()

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Collects a batch of the test split, in order.

        Args:
            outputs: the model's, fp32.
            batch: the batch that they were computed from.
        """
        if self._units is not None:
            with self._guarded():
                self._rows.append(self._task.unit_sums(outputs, batch).cpu().double())

    def join(self, ranks: Ranks) -> None:
        """Collects the rows of all ranks, whose parts follow each other. All ranks call it.

        Args:
            ranks: of the job.
        """
        every = ranks.gather((self._units is not None, self._rows))
        if not all(known for known, _ in every):
            self._units = None
        self._rows = [row for _, rows in every for row in rows]

    def recorded(self, figure: float) -> TestUnits | None:
        """The units as a record holds them.

        Args:
            figure: the primary metric of the whole test split.

        Returns:
            None where the task has none, or where they do not give the metric.
        """
        if self._units is None:
            return None
        with self._guarded():
            sums, counts = (np.bincount(self._units.of_example, column) for column in torch.cat(self._rows).numpy().T)
            if not math.isclose(sums.sum() / counts.sum(), figure, rel_tol=1e-9, abs_tol=1e-12):
                raise ValueError(f"they give {sums.sum() / counts.sum()!r}, the test {figure!r}")
            digits = ([float(f"{value:.10g}") for value in column] for column in (sums, counts))
            return TestUnits(word=self._units.word, **dict(zip(("sums", "counts"), digits, strict=True)))
        return None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as problem:
            self._units = None
            self._warn(f"{self._task.name}: no figures by test unit ({type(problem).__name__}: {first_line(problem)})")


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
    ranks: Ranks = ALONE,
) -> tuple[dict[str, float], int]:
    """The metrics of a split and how many examples were evaluated. Raises IncompleteEvaluation if some were not.
    `tally` receives the primary metric of each example. Each of several ranks, which all call it, evaluates its part;
    sums, counts and the tally are then those of all.
    """
    totals: dict[str, tuple[float, float]] = {}
    seen = 0
    part = {"shard": ranks.shard} if ranks.world > 1 else {}
    with eval_mode(model):
        for batch in task.eval_batches(split, batch_size, workers, **part):
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
    if ranks.world > 1:
        totals, seen = _added(ranks.gather((totals, seen)))
        if tally is not None:
            tally.join(ranks)
    if seen != task.n_examples(split):
        raise IncompleteEvaluation(
            f"{task.name}: {seen} examples of {split} were evaluated, it has {task.n_examples(split)}"
        )
    return task.summarise(totals), seen


def _added(parts: list[tuple[dict[str, tuple[float, float]], int]]) -> tuple[dict[str, tuple[float, float]], int]:
    """Sums, counts and numbers of examples over ranks, which may have different names."""
    names = dict.fromkeys(name for totals, _ in parts for name in totals)
    each = {name: [totals.get(name, (0.0, 0.0)) for totals, _ in parts] for name in names}
    added = {name: (sum(total for total, _ in some), sum(count for _, count in some)) for name, some in each.items()}
    return added, sum(seen for _, seen in parts)


@torch.no_grad()
def decoded_per_s(model: Decoder, device: torch.device, precision: str) -> float:
    """Measures decoding from an empty context on.

    Args:
        model: on the device.
        device: where it decodes.
        precision: of the forward pass, as in training.

    Returns:
        Tokens per second of wall time, over 64 tokens or as many as the context allows.
    """
    length = model.trunk.config.length
    token_1 = torch.zeros(1, dtype=torch.long, device=device)
    warm_up = min(WARM_UP, length - 1)
    counted = min(TOKENS, length - warm_up)
    with eval_mode(model), autocast(device, precision):
        states = model.init_state(1, length)
        for _ in range(warm_up):
            _, states = model.step(token_1, states)
        began = _now(device)
        for _ in range(counted):
            _, states = model.step(token_1, states)
        return counted / (_now(device) - began)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
