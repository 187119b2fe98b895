"""AdamW with weight decay on matrices only, and a cosine learning-rate schedule with a linear warm-up."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from backbones.baselines.series import ClosedForm
from suite.config.run_config import TrainConfig
from suite.models.inputs import Backbone


def make_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; for a model with a closed form, an optimizer without parameters, so that its checkpoints have the usual
    layout.
    """
    if isinstance(model, ClosedForm):
        return torch.optim.SGD([{"params": []}], lr=train.lr)
    groups = param_groups_weight_decay(model, train.weight_decay, no_weight_decay_list=_not_decayed(model))
    return create_optimizer_v2(groups, opt="adamw", lr=train.lr, weight_decay=0.0, betas=(train.beta1, train.beta2))


def make_schedule(optimizer: torch.optim.Optimizer, train: TrainConfig) -> CosineLRScheduler:
    """Linear warm-up to the peak, then a cosine to `min_lr` of it at the last step."""
    warmup = round(train.warmup * train.steps)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(train.steps - warmup, 1),
        lr_min=train.min_lr * train.lr,
        t_in_epochs=False,
        warmup_t=warmup,
        warmup_lr_init=train.lr / max(warmup, 1),
        warmup_prefix=True,
    )


def _not_decayed(model: nn.Module) -> set[str]:
    """Names of the matrices without weight decay."""
    return {f"trunk.{name}" for name in model.trunk.no_weight_decay()} if isinstance(model, Backbone) else set()
