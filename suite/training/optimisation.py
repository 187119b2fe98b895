"""AdamW with weight decay on matrices only, and a cosine learning-rate schedule with a linear warm-up.

They take no part of timm, which imports torchvision, and no detour by `torch._dynamo`: importing these takes 4 CPU
seconds, as much as a short run trains.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from backbones.baselines.series import ClosedForm
from suite.config.run_config import TrainConfig
from suite.models.inputs import Backbone

_update = inspect.unwrap(torch.optim.AdamW.step)


class EagerAdamW(torch.optim.AdamW):
    """PyTorch's AdamW without its guards against being traced by `torch.compile`, each of which imports the compiler.
    The suite never compiles an optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update.

        Args:
            closure: see `torch.optim.Optimizer.step`; the suite passes none.

        Returns:
            What the closure returned.
        """
        return _update(self, closure)


class CosineSchedule:
    """Linear warm-up to the peak, then a cosine to `min_lr` of it at the last step."""

    def __init__(self, optimizer: torch.optim.Optimizer, train: TrainConfig) -> None:
        self.optimizer, self.peak, self.least = optimizer, train.lr, train.min_lr * train.lr
        self.warmup = round(train.warmup * train.steps)
        self.decay = max(train.steps - self.warmup, 1)

    def step_update(self, step: int) -> None:
        """Sets the learning rate of the next update.

        Args:
            step: number of updates so far.
        """
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def rate(self, step: int) -> float:
        """The learning rate after `step` updates."""
        if step < self.warmup:
            first = self.peak / max(self.warmup, 1)
            return first + step * ((self.peak - first) / self.warmup)
        past = step - self.warmup
        if past >= self.decay:
            return self.least
        return self.least + 0.5 * (self.peak - self.least) * (1 + math.cos(math.pi * past / self.decay))


def make_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; for a model with a closed form, an optimizer without parameters, so that its checkpoints have the usual
    layout.
    """
    if isinstance(model, ClosedForm):
        return torch.optim.SGD([{"params": []}], lr=train.lr)
    groups = parameter_groups(model, train.weight_decay)
    # One pass over all parameters in place of a dozen small operations on each, which two threads cannot share.
    return EagerAdamW(groups, lr=train.lr, weight_decay=0.0, betas=(train.beta1, train.beta2), fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters without weight decay (vectors, biases, and what a mixer declares), then the others.

    Args:
        model: its trainable parameters are taken.
        weight_decay: of the others; 0 puts all parameters into one group.

    Returns:
        The groups that are not empty, for an optimizer.
    """
    kept, groups = _not_decayed(model), dict[float, list[nn.Parameter]]({0.0: [], weight_decay: []})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim <= 1 or name.endswith(".bias") or name in kept
            groups[0.0 if spared else weight_decay].append(parameter)
    return [{"params": some, "weight_decay": decay} for decay, some in groups.items() if some]


def _not_decayed(model: nn.Module) -> set[str]:
    """Names of the matrices without weight decay."""
    return {f"trunk.{name}" for name in model.trunk.no_weight_decay()} if isinstance(model, Backbone) else set()
