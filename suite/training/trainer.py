"""The training loop of all domains: gradient clipping, cosine schedule with warm-up, validation, selection of the best
checkpoint, and resuming bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from backbones.baselines.series import ClosedForm
from suite.config.run_config import RunConfig
from suite.errors import reason
from suite.training import checkpoint
from suite.training.evaluate import autocast, evaluate
from suite.training.loop.observer import Observer
from suite.training.loop.parts import parts_of
from suite.training.loop.results import Best, Clock, FitResult
from suite.training.optimisation import CosineSchedule, make_optimizer
from suite.training.parallel.ranks import ALONE
from suite.training.processors import loader_workers
from suite.training.signals import Interrupted, Stop
from tasks.base import Batch, Task

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

CHECKPOINT_S = 300.0  # at most this much work is lost by a kill -9, even where validations are further apart


class Diverged(RuntimeError):
    """The loss, a gradient or a metric is not finite."""


class Trainer:
    """Trains one model. Everything that an interruption must not lose is in `state()`."""

    ranks = ALONE
    #: What ends a checkpoint that cannot be written, and not the run. PyTorch raises a RuntimeError for a full disk.
    unwritten: tuple[type[Exception], ...] = (OSError, RuntimeError)

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
        self.ema = self._averaged(model, train.ema) if train.ema else None
        self.forwarded: nn.Module = model  # what computes outputs and gradients: the model, or a wrapper of it
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
        batches = self.batches(loader_workers(self.task))
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
            elif self._checkpoint_is_due():
                with self.clock.timed("bookkeeping"):
                    self._save()
        return FitResult(self.best, self.valid, self.trace, self.clock, steps * self.config.train.batch_size)

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved > CHECKPOINT_S

    def selected(self, best: Best) -> nn.Module:
        """The model with the selected weights, to be tested.

        Args:
            best: of the finished training.

        Returns:
            On the trainer's device.
        """
        self.evaluated.load_state_dict(best.weights)
        return self.evaluated

    def batches(self, workers: int) -> Iterator[Batch]:
        """The training batches from the next step on, loaded by that many processes; this rank's rows of them."""
        return self.task.train_batches(self.config.seed, self.config.train.batch_size, self.step, workers)

    def first_losses(self, steps: int) -> list[float]:
        """Trains the first steps alone, without validation and checkpoints; the losses are those of `fit`."""
        self.model.train()
        return [self._update(batch)[0] for batch in islice(self.batches(loader_workers(self.task)), steps)]

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
        norm = self._clip()
        if not (math.isfinite(value) and math.isfinite(norm)):
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
        return value, norm

    def _clip(self) -> float:
        """Clips the gradient; returns its norm before."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip).item()

    def accumulate_gradients(self, batch: Batch) -> float:
        """Adds the gradient of a batch on the device; returns its loss."""
        n = self.config.train.accumulate
        if n == 1:
            return self._backward(batch, 1.0)
        parts = parts_of(batch, n)
        scored = [self.task.scored_values(part) for part in parts]
        # each part has its fraction of the values that the loss is the mean over
        weighed = [(part, count / sum(scored)) for part, count in zip(parts, scored, strict=True) if count]
        return sum(self._backward(part, weight) for part, weight in weighed)

    def _backward(self, part: Batch, weight: float) -> float:
        """Adds the part's gradient of the batch's loss; returns what it adds to that loss."""
        with autocast(self.device, self.config.train.precision):
            outputs = self.forwarded(part.inputs)
        loss = self.task.loss(outputs.float(), part)
        loss = loss if weight == 1.0 else loss * weight
        loss.backward()
        return loss.item()

    def _after_update(self, loss: float, norm: float) -> None:
        if self.step in self.trace_steps:
            self.trace.append((self.step, loss))
        self.observer.stepped(self.step, loss, self.optimizer.param_groups[0]["lr"], norm)

    def _validate(self) -> None:
        with self.clock.timed("evaluation"):
            self.valid = self._valid_metrics()
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

    def _valid_metrics(self) -> dict[str, float]:
        train = self.config.train
        metrics, _ = evaluate(
            self.evaluated,
            self.task,
            "valid",
            batch_size=train.eval_batch_size,
            device=self.device,
            precision=train.precision,
            workers=loader_workers(self.task),
            ranks=self.ranks,
        )
        return metrics

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.observer.before_checkpoint(self.step)
        try:
            self._write()
            self._saved_step = self.step
        except self.unwritten as error:
            if not self._disk_warned:
                self.observer.warn(
                    f"no checkpoint could be written to {self.run_dir} ({reason(error)}); the run continues without; "
                    f"if it stops, what it trains after step {self._saved_step} is lost"
                )
            self._disk_warned = True

    def _write(self) -> None:
        checkpoint.save(self.run_dir, self.state())

    def _averaged(self, model: nn.Module, decay: float) -> ModelEmaV3:
        """A model with averaged weights."""
        from timm.utils import ModelEmaV3  # with torchvision, 2 CPU seconds that few runs need

        return ModelEmaV3(model, decay=decay, use_warmup=True)

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
        self.best = Best(**state["best"])
        self._restore_progress(state)
        checkpoint.restore_random_state(state["random"])

    def _restore_progress(self, state: dict[str, Any]) -> None:
        self.step, self.valid = state["step"], state["valid"]
        self._saved_step = self.step
        self.clock = Clock(**state["clock"])
        self.trace = [(int(step), float(loss)) for step, loss in state["trace"]]
