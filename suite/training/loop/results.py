"""What the training loop measures, selects and returns."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from tasks.base import Task


@dataclass
class Clock:
    """Seconds by activity, summed over all parts of a resumed run."""

    step: float = 0.0
    data: float = 0.0
    evaluation: float = 0.0
    bookkeeping: float = 0.0
    earlier: float = 0.0  # wall time of the parts before a resume

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time inside to the field of that name."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


@dataclass
class Best:
    """The checkpoint with the best primary metric on validation so far; on a tie, the earlier one."""

    step: int = -1
    value: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, step: int, metrics: dict[str, float], task: Task, model: nn.Module) -> None:
        """Selects these weights if they are the best so far."""
        value = metrics[task.primary.name]
        better = value > self.value if task.primary.higher_is_better else value < self.value
        if self.step < 0 or better:
            self.step, self.value, self.metrics = step, value, metrics
            self.weights = {name: t.detach().clone() for name, t in model.state_dict().items()}


@dataclass
class FitResult:
    """What training returns. `trace` is (step, loss); `examples` counts those trained on, repeats included."""

    best: Best
    final_valid: dict[str, float]
    trace: list[tuple[int, float]]
    clock: Clock
    examples: int
