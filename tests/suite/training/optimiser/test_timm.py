"""AdamW and the schedule are timm's, bit for bit; runs do not import timm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from suite.config.run_config import TrainConfig
from suite.training.optimisation import CosineSchedule, make_optimizer, parameter_groups


@pytest.mark.parametrize("steps", [1, 2, 6, 97])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.34, 1.0])
def test_learning_rates_are_those_of_timm_bit_for_bit(steps, warmup):
    from timm.scheduler import CosineLRScheduler

    train = TrainConfig(steps=steps, lr=3e-4, min_lr=0.07, warmup=warmup, evals=1)
    ours, theirs = (make_optimizer(nn.Linear(2, 2), train) for _ in range(2))
    warm = round(warmup * steps)
    schedule = CosineLRScheduler(
        theirs,
        t_initial=max(steps - warm, 1),
        lr_min=train.min_lr * train.lr,
        t_in_epochs=False,
        warmup_t=warm,
        warmup_lr_init=train.lr / max(warm, 1),
        warmup_prefix=True,
    )
    own = CosineSchedule(ours, train)
    for step in range(steps + 3):
        own.step_update(step)
        schedule.step_update(step)
        rates = [{group["lr"] for group in optimizer.param_groups} for optimizer in (ours, theirs)]
        assert rates[0] == rates[1], step


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_and_groups_are_those_of_timm_bit_for_bit(weight_decay):
    from timm.optim import create_optimizer_v2, param_groups_weight_decay

    train = TrainConfig(lr=1e-2, weight_decay=weight_decay)
    models = []
    for own in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
        groups = parameter_groups(model, weight_decay) if own else param_groups_weight_decay(model, weight_decay)
        betas = (train.beta1, train.beta2)
        other = create_optimizer_v2(groups, opt="adamw", lr=train.lr, weight_decay=0.0, betas=betas, fused=True)
        optimizer = make_optimizer(model, train) if own else other
        for _ in range(3):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        optimizer.load_state_dict(optimizer.state_dict())
        models.append([*model.parameters(), *(group["weight_decay"] for group in optimizer.param_groups)])
    assert len(models[0]) == len(models[1])
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*models, strict=True))
