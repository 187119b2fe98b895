"""What a baseline costs, counted on its model. The meta device will do: nothing is computed.

Shape letters: B batch, N look-back, C channels.
"""

from __future__ import annotations

import torch
from torch import nn

from backbones.baselines.base import SeriesSizes
from backbones.baselines.series import ClosedForm


def parameters_of(model: nn.Module) -> int:
    """All fitted parameters, whether by gradients or in closed form."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or isinstance(model, ClosedForm))


def flops_of(model: nn.Module, sizes: SeriesSizes) -> int:
    """Forward FLOPs of one window with all its channels, counted on the model's device."""
    if isinstance(model, ClosedForm):
        return 2 * parameters_of(model) * sizes.channels
    from torch.utils.flop_counter import FlopCounterMode  # it imports Triton

    window_BNC = torch.zeros(1, sizes.look_back, sizes.channels, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        model(window_BNC)
    return int(counter.get_total_flops())
