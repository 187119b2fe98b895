"""The training loop on several ranks: the global batch, its loss and its gradient are those of a single process.

Each rank computes its rows of every batch. Whatever decides the loop's course is exchanged once per step, so that all
ranks validate, save and stop after the same steps.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from suite.config.run_config import RunConfig
from suite.training.evaluate import autocast
from suite.training.loop.observer import Observer
from suite.training.loop.parts import parts_of
from suite.training.loop.results import Best
from suite.training.parallel import models, saving
from suite.training.parallel.batch_norm import share_statistics
from suite.training.parallel.environment import agent
from suite.training.parallel.ranks import Ranks
from suite.training.signals import Stop
from suite.training.trainer import Trainer
from tasks.base import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from timm.utils import ModelEmaV3


class ParallelTrainer(Trainer):
    """One rank's trainer. All ranks construct it and call its methods in the same order."""

    unwritten = (OSError,)  # whatever cannot be written; a RuntimeError is the end of another rank

    def __init__(
        self,
        build: Callable[[], nn.Module],
        task: Task,
        config: RunConfig,
        *,
        device: torch.device,
        run_dir: Path,
        observer: Observer,
        stop: Stop,
        ranks: Ranks,
    ) -> None:
        """Builds the model, equal on all ranks.

        Args:
            build: gives a model on the device; the first one has the initial weights.
            task: loaded.
            config: of the run; its batch size is that of all ranks together.
            device: of this rank.
            run_dir: the run's folder, which all ranks share.
            observer: called on every rank.
            stop: this rank's; a stop that one rank receives stops all.
            ranks: of the job.
        """
        self.ranks, self._build, self._own_stop = ranks, build, stop
        self._save_due, self._agent = False, agent()
        model = build()
        models.seed_noise(config.seed, ranks.rank)
        statistics = torch.distributed.new_group()
        assert isinstance(statistics, torch.distributed.ProcessGroup)
        share_statistics(model, statistics)
        self._unsharded = copy.deepcopy(model) if ranks.strategy == "fsdp2" and config.train.ema else None
        if ranks.strategy == "fsdp2":
            models.shard(model)
        super().__init__(model, task, config, device=device, run_dir=run_dir, observer=observer, stop=Stop())
        self._unsharded = None
        if ranks.strategy == "ddp":
            self.forwarded = models.replicate(model, ranks)
        self._scores_rows = type(task).scored_values is Task.scored_values

    def _averaged(self, model: nn.Module, decay: float) -> ModelEmaV3:
        ema = super()._averaged(self._unsharded or model, decay)
        if self._unsharded is not None:
            models.shard(ema.module)
            ema.foreach = False  # parameters are sharded and buffers are not
        return ema

    def batches(self, workers: int) -> Iterator[Batch]:
        """This rank's rows of the training batches.

        Args:
            workers: processes that load them.

        Returns:
            From the next step on.
        """
        batch_size = self.config.train.batch_size
        return self.task.train_batches(self.config.seed, batch_size, self.step, workers, self.ranks.shard)

    def _checkpoint_is_due(self) -> bool:
        return self._save_due

    def accumulate_gradients(self, batch: Batch) -> float:
        """Adds the gradient of the global batch, of which this rank computes its rows.

        Args:
            batch: this rank's rows, on the device.

        Returns:
            The loss of the global batch.
        """
        parts = parts_of(batch, min(self.config.train.accumulate, batch.size))  # as many on every rank
        counts = [self.task.scored_values(part) for part in parts]
        total = self._total(sum(counts))
        value = 0.0
        for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
            with models.synchronising(self.forwarded, i == len(parts) - 1):
                value += self._backward_part(part, count, total)
        return self._agree(value)

    def _total(self, count: float) -> float:
        """How many values the loss of the global batch is the mean over."""
        if self._scores_rows:
            return count * self.ranks.world
        return sum(each for (each,) in self.ranks.exchange([count]))

    def _backward_part(self, part: Batch, count: float, total: float) -> float:
        """Adds the part's gradient of the global batch's loss; returns what it adds to that loss."""
        with autocast(self.device, self.config.train.precision):
            outputs = self.forwarded(part.inputs)
        if not count:  # nothing is scored, yet all ranks exchange gradients
            (outputs.float().sum() * 0.0).backward()
            return 0.0
        loss = self.task.loss(outputs.float(), part)
        (loss * (count * self.ranks.world / total)).backward()  # the gradients are averaged over the ranks
        return loss.item() * count / total

    def _agree(self, value: float) -> float:
        """The loss of the global batch, and what all ranks do after this step."""
        due = super()._checkpoint_is_due()
        if self._agent is not None and agent() != self._agent:
            self._own_stop.request()  # it was killed, and nobody waits for the ranks any more
        every = self.ranks.exchange([value, float(self._own_stop.received or 0), float(due)])
        if received := max(int(number) for _, number, _ in every):
            self.stop.request(received)
        self._save_due = bool(every[0][2])
        return sum(part for part, _, _ in every)

    def _clip(self) -> float:
        return models.whole_numbers(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip))

    def _valid_metrics(self) -> dict[str, float]:
        with models.gathered(self.evaluated):
            return super()._valid_metrics()

    def selected(self, best: Best) -> nn.Module:
        """As of a single process: the whole model, on every rank.

        Args:
            best: of the finished training.

        Returns:
            On the trainer's device.
        """
        model = self._build()
        model.load_state_dict({name: models.whole(x) for name, x in best.weights.items()})
        return model

    def _write(self) -> None:
        content = {
            "identity": self.config.identity,
            "step": self.step,
            "param_groups": self.optimizer.state_dict()["param_groups"],
            "best": {"step": self.best.step, "value": self.best.value, "metrics": self.best.metrics},
            "valid": self.valid,
            "trace": self.trace,
            "clock": {**asdict(self.clock), "earlier": self.clock.earlier + time.monotonic() - self._began},
            "origin": self.origin,
            "resumed_at": self.resumed_at,
        }
        ema = self.ema.module if self.ema else None
        tensors = saving.tensors_of(self.model, self.optimizer, ema, self.best.weights)
        saving.save(self.run_dir, content, tensors | saving.generators(self.ranks.rank, self.device), self.ranks)

    def restore(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken, on this or any other number of ranks.

        Args:
            state: the content of a checkpoint, equal on all ranks.
        """
        saving.restore_model(self.model, state["model"])
        saving.restore_optimizer(self.optimizer, state["optimizer"])
        if self.ema:
            saving.restore_model(self.ema.module, state["ema"])
        weights = saving.laid_out(self.evaluated, state["best"]["weights"])
        self.best = Best(**{**state["best"], "weights": {name: x.to(self.device) for name, x in weights.items()}})
        self._restore_progress(state)
        if not saving.restore_generators(state, self.ranks, self.device):
            models.seed_noise(self.config.seed, self.ranks.rank, self.step)
