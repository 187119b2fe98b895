"""A deterministic run computes its first gradients several times, and does not start if a bit differs.

PyTorch refuses the operations that it knows. A kernel of someone else's that adds in changing order, or a mixer that
draws from an unseeded generator, it cannot know; most of these differ within a few passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.baselines.series import ClosedForm
from suite.errors import UserError
from suite.training import checkpoint
from suite.training.trainer import Trainer
from tasks.base import Batch
from tasks.randomness import restored_generators

_PASSES = 3


@dataclass(frozen=True)
class _Pass:
    """The loss of a batch, and the gradient of each parameter that has one."""

    loss: float
    gradients: dict[str, Tensor]

    def difference(self, other: _Pass) -> str:
        """The first result that differs in a bit; empty where none does. NaN is equal to NaN."""
        if not (self.loss == other.loss or (self.loss != self.loss and other.loss != other.loss)):
            return "the loss"
        for name in self.gradients | other.gradients:
            one, two = self.gradients.get(name), other.gradients.get(name)
            if one is None or two is None or not _same_bits(one, two):
                return f"the gradient of {name}"
        return ""


def require_equal_passes(trainer: Trainer) -> None:
    """Raises UserError where repeating a step does not repeat its loss and its gradients bit for bit.

    Args:
        trainer: before its first step. Its weights, buffers and the generators stay as they are.
    """
    if isinstance(trainer.model, ClosedForm):
        return
    task, train = trainer.task, trainer.config.train
    batch = next(iter(task.train_batches(trainer.config.seed, train.batch_size, trainer.step, 0))).to(trainer.device)
    first, *others = [_pass(trainer, batch) for _ in range(_PASSES)]
    for other in others:
        if what := first.difference(other):
            raise UserError(
                f"{trainer.config.mixer_name} on {trainer.config.task_name} is not deterministic: {what} differs when "
                f"step {trainer.step + 1} is computed again; leave out --deterministic, or find the operation "
                "(docs/determinism.md)"
            )


def _pass(trainer: Trainer, batch: Batch) -> _Pass:
    """One forward and backward pass, after which everything but the result is as before."""
    model, random = trainer.model, checkpoint.random_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    with restored_generators():
        loss = trainer.accumulate_gradients(batch)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    trainer.optimizer.zero_grad(set_to_none=True)
    checkpoint.restore_random_state(random)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return _Pass(loss, gradients)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
