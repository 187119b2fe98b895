"""Evaluation: every example of a split once, sums and counts, and a check that none was dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from tasks.base import Split, Task


class IncompleteEvaluation(RuntimeError):
    """An evaluation did not see as many examples as its split has."""


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
) -> tuple[dict[str, float], int]:
    """The metrics of a split and how many examples were evaluated. Raises IncompleteEvaluation if some were not."""
    totals: dict[str, tuple[float, float]] = {}
    seen = 0
    with eval_mode(model):
        for batch in task.eval_batches(split, batch_size, workers):
            batch = batch.to(device)
            with autocast(device, precision):
                outputs = model(batch.inputs)
            for name, (total, count) in task.measure(outputs.float(), batch).items():
                old_total, old_count = totals.get(name, (0.0, 0.0))
                totals[name] = (old_total + total, old_count + count)
            seen += batch.size
    if seen != task.n_examples(split):
        raise IncompleteEvaluation(
            f"{task.name}: {seen} examples of {split} were evaluated, it has {task.n_examples(split)}"
        )
    return task.summarise(totals), seen
