"""A deterministic run computes its first gradients several times, and does not start if a bit differs.

PyTorch refuses the operations that it knows. A kernel of someone else's that adds in changing order, or a mixer that
draws from an unseeded generator, it cannot know; most of these differ within a few passes. Several ranks compare the
gradients that each of them holds after the exchange; none starts where one of them finds a difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.baselines.series import ClosedForm
from suite.errors import UserError
from suite.training import checkpoint
from suite.training.parallel.models import own_part
from suite.training.trainer import Trainer
from tasks.base import Batch
from tasks.randomness import restored_generators

_PASSES = 3


class NotRepeatable(UserError):
    """A step does not repeat bit for bit, on this rank or on another one; all ranks raise it."""


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
    """Raises NotRepeatable where a step repeated does not give its loss and gradients bit for bit. All ranks call it.

    Args:
        trainer: before its first step. Its weights, buffers and the generators stay as they are.
    """
    if isinstance(trainer.model, ClosedForm):
        return
    batch = next(trainer.batches(workers=0)).to(trainer.device)
    first, *others = [_pass(trainer, batch) for _ in range(_PASSES)]
    differences = trainer.ranks.gather(next(filter(None, map(first.difference, others)), ""))
    if what := next(filter(None, differences), ""):
        raise NotRepeatable(
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
    # copies: data-parallel gradients are views of memory that the next pass writes to
    gradients = {name: own_part(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}
    trainer.optimizer.zero_grad(set_to_none=True)
    checkpoint.restore_random_state(random)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return _Pass(loss, gradients)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
