"""The training loop of all domains: gradient clipping, cosine schedule with warm-up, validation, selection of the best
checkpoint, and resuming bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from backbones.baselines.series import ClosedForm
from suite.config.run_config import RunConfig
from suite.errors import reason
from suite.training import checkpoint
from suite.training.evaluate import autocast, evaluate
from suite.training.optimisation import CosineSchedule, make_optimizer
from suite.training.processors import loader_workers
from suite.training.signals import Interrupted, Stop
from tasks.base import Batch, Shard, Task

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

CHECKPOINT_S = 300.0  # at most this much work is lost by a kill -9, even where validations are further apart


class Diverged(RuntimeError):
    """The loss, a gradient or a metric is not finite."""


class Observer(Protocol):
    """What the training loop calls as it goes; the calls should return quickly.

    started: before the first step; `step` is 0, or where a resumed run continues.
    stepped: after each step, with its loss, learning rate and gradient norm before clipping.
    validated: after each validation, with the metrics by name.
    before_checkpoint: may block until everything that was reported is written.
    warn: a problem that does not stop the run.
    """

    def started(self, step: int, total: int) -> None: ...
    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None: ...
    def validated(self, step: int, metrics: dict[str, float]) -> None: ...
    def before_checkpoint(self, step: int) -> None: ...
    def warn(self, message: str) -> None: ...


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


class Trainer:
    """Trains one model. Everything that an interruption must not lose is in `state()`."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        config: RunConfig,
        *,
        device: torch.device,
        run_dir: Path,
        observer: Observer,
        stop: Stop,
    ) -> None:
        self.model, self.task, self.config, self.device = model, task, config, device
        self.run_dir, self.observer, self.stop = run_dir, observer, stop
        train = config.train
        self.optimizer = make_optimizer(model, train)
        self.schedule = CosineSchedule(self.optimizer, train)
        self.ema = _averaged(model, train.ema) if train.ema else None
        self.best, self.clock, self.step = Best(), Clock(), 0
        self.origin: dict[str, str] = {}  # kept in the checkpoint: a resumed run must have the same
        self.resumed_at: list[int] = []
        self._began = self._saved = time.monotonic()
        self.trace: list[tuple[int, float]] = []
        self.valid: dict[str, float] = {}
        self.trace_steps = frozenset(train.trace_steps)
        self._disk_warned, self._saved_step = False, 0

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated, selected and tested: the one with averaged weights where there is one."""
        return cast(nn.Module, self.ema.module) if self.ema else self.model

    def fit(self) -> FitResult:
        """Trains to the last step. Raises Diverged, and Interrupted (after a checkpoint) when a stop is requested."""
        if isinstance(self.model, ClosedForm):
            return self._solve(self.model)
        steps = self.config.train.steps
        batches = self._batches()
        self.observer.started(self.step, steps)
        self.model.train()
        while self.step < steps:
            if self.stop.received:
                self._save()
                raise Interrupted(self.stop.received)
            with self.clock.timed("data"):
                batch = next(batches)
            with self.clock.timed("step"):
                loss, norm = self._update(batch)
            with self.clock.timed("bookkeeping"):
                self._after_update(loss, norm)
            if self.config.train.validates_after(self.step):
                self._validate()
            elif time.monotonic() - self._saved > CHECKPOINT_S:
                with self.clock.timed("bookkeeping"):
                    self._save()
        return FitResult(self.best, self.valid, self.trace, self.clock, steps * self.config.train.batch_size)

    def _batches(self) -> Iterator[Batch]:
        train, workers = self.config.train, loader_workers(self.task)
        return self.task.train_batches(self.config.seed, train.batch_size, self.step, workers)

    def first_losses(self, steps: int) -> list[float]:
        """Trains the first steps alone, without validation and checkpoints; the losses are those of `fit`."""
        self.model.train()
        return [self._update(batch)[0] for batch in islice(self._batches(), steps)]

    def _solve(self, model: ClosedForm) -> FitResult:
        """Fits in one pass over the training examples instead of steps; its only checkpoint is tested."""
        self.observer.started(0, 1)
        with self.clock.timed("step"):
            batches = self.task.eval_batches("train", self.config.train.eval_batch_size, loader_workers(self.task))
            seen = model.solve((batch.inputs, batch.targets) for batch in (b.to(self.device) for b in batches))
        self.step = 1
        self._validate()
        return FitResult(self.best, self.valid, self.trace, self.clock, seen)

    def _update(self, batch: Batch) -> tuple[float, float]:
        batch = batch.to(self.device)
        self.schedule.step_update(self.step)
        value = self.accumulate_gradients(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip)
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            what = "loss" if not math.isfinite(value) else "gradient"
            raise Diverged(
                f"the {what} is not finite at step {self.step + 1} of {self.config.train.steps} (try a lower "
                "learning rate: --set lr=…)"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema:
            self.ema.update(self.model, step=self.step)
        return value, norm.item()

    def accumulate_gradients(self, batch: Batch) -> float:
        """Adds the gradient of a batch on the device; returns its loss."""
        return sum(self._backward(part, weight) for part, weight in self._parts(batch))

    def _parts(self, batch: Batch) -> list[tuple[Batch, float]]:
        """The batch in `accumulate` parts, each with its fraction of the values that the loss is the mean over."""
        n = self.config.train.accumulate
        if n == 1:
            return [(batch, 1.0)]
        rows = [Shard(i, n).part(batch.size) for i in range(n)]
        parts = [Batch(batch.inputs[some], batch.targets[some]) for some in rows]
        scored = [self.task.scored_values(part) for part in parts]
        return [(part, count / sum(scored)) for part, count in zip(parts, scored, strict=True) if count]

    def _backward(self, part: Batch, weight: float) -> float:
        """Adds the part's gradient of the batch's loss; returns what it adds to that loss."""
        with autocast(self.device, self.config.train.precision):
            outputs = self.model(part.inputs)
        loss = self.task.loss(outputs.float(), part)
        loss = loss if weight == 1.0 else loss * weight
        loss.backward()
        return loss.item()

    def _after_update(self, loss: float, norm: float) -> None:
        if self.step in self.trace_steps:
            self.trace.append((self.step, loss))
        self.observer.stepped(self.step, loss, self.optimizer.param_groups[0]["lr"], norm)

    def _validate(self) -> None:
        train = self.config.train
        with self.clock.timed("evaluation"):
            self.valid, _ = evaluate(
                self.evaluated,
                self.task,
                "valid",
                batch_size=train.eval_batch_size,
                device=self.device,
                precision=train.precision,
                workers=loader_workers(self.task),
            )
        # every metric is checked: top-1 is finite even where the logits are not
        broken = [name for name, value in self.valid.items() if not math.isfinite(value)]
        if broken:
            raise Diverged(
                f"validation {broken[0]} is not finite at step {self.step} (try a lower learning rate: --set lr=…)"
            )
        with self.clock.timed("bookkeeping"):
            self.best.offer(self.step, self.valid, self.task, self.evaluated)
            self.observer.validated(self.step, self.valid)
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.observer.before_checkpoint(self.step)
        try:
            checkpoint.save(self.run_dir, self.state())
            self._saved_step = self.step
        except (OSError, RuntimeError) as error:
            if not self._disk_warned:
                self.observer.warn(
                    f"no checkpoint could be written to {self.run_dir} ({reason(error)}); the run continues without; "
                    f"if it stops, what it trains after step {self._saved_step} is lost"
                )
            self._disk_warned = True

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "identity": self.config.identity,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "best": asdict(self.best),
            "valid": self.valid,
            "trace": self.trace,
            "clock": {**asdict(self.clock), "earlier": self.clock.earlier + time.monotonic() - self._began},
            "origin": self.origin,
            "resumed_at": self.resumed_at,
            "random": checkpoint.random_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.step, self.valid = state["step"], state["valid"]
        self._saved_step = self.step
        self.best, self.clock = Best(**state["best"]), Clock(**state["clock"])
        self.trace = [(int(step), float(loss)) for step, loss in state["trace"]]
        checkpoint.restore_random_state(state["random"])


def _averaged(model: nn.Module, decay: float) -> ModelEmaV3:
    """A model with averaged weights."""
    from timm.utils import ModelEmaV3  # with torchvision, 2 CPU seconds that few runs need

    return ModelEmaV3(model, decay=decay, use_warmup=True)
