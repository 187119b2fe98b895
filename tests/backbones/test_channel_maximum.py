"""A head that returns each channel's maximum over 16 tokens: a free energy can learn it, one mean for all cannot.

T = 16, one head, 16 channels of values drawn from N(0, 1) in a layer of D = 64; right when |y − max| < .1 (motivation
of arXiv 2602.07160). FEM has 16,192 parameters here, softmax attention 16,384. Same draws, steps, optimiser and
schedule; softmax gets the best of three learning rates.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backbones.mixers import registry
from backbones.mixers.base import Mixer

D, T, CHANNELS = 64, 16, 16
STEPS, ROWS = 1500, 32


def head(name: str) -> Mixer:
    cls = registry.get(name)
    widths = {"d_v": 32, "d_k": 56} if name == "fem" else {}
    return cls(cls.Config(causal=False, heads=1, **widths), D, T)


def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs `[B, T, D]`, the values in the first channels and ones in the rest; targets `[B, 1, CHANNELS]`."""
    values = torch.randn(rows, T, CHANNELS, generator=generator)
    return torch.cat([values, torch.ones(rows, T, D - CHANNELS)], -1), values.amax(1, keepdim=True)


def fraction_right(name: str, rate: float, seed: int = 0) -> float:
    torch.manual_seed(seed)
    mixer, generator = head(name), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(mixer.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=STEPS)
    for _ in range(STEPS):
        x_BTD, largest = draw(ROWS, generator)
        loss = (mixer(x_BTD)[..., :CHANNELS] - largest).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mixer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    x_BTD, largest = draw(1024, generator)
    with torch.no_grad():
        return float(((mixer(x_BTD)[..., :CHANNELS] - largest).abs() < 0.1).float().mean())


def test_the_free_energy_layer_has_no_more_parameters() -> None:
    fem, softmax = (sum(p.numel() for p in head(name).parameters()) for name in ("fem", "softmax"))
    assert 0.95 * softmax <= fem <= softmax


@pytest.mark.slow
def test_a_free_energy_head_learns_the_maximum_per_channel_and_a_softmax_head_cannot() -> None:
    fem = fraction_right("fem", 1e-2)
    softmax = max(fraction_right("softmax", rate) for rate in (3e-3, 1e-2, 3e-2))
    assert fem >= 0.95
    assert softmax < 0.60
