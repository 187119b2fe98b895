"""Causal layers in both directions: without causality the first half of the heads reads the sequence from its start,
the other half from its end. Parameters and FLOPs stay the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backbones.mixers.errors import MixerError


def heads_ahead(heads: int, causal: bool) -> int:
    """How many heads read from the start.

    Args:
        heads: number of heads H.
        causal: whether all do.

    Returns:
        H, or half of it, rounded up.

    Raises:
        MixerError: where there is one head for two directions.
    """
    if not causal and heads < 2:
        raise MixerError("a layer that is not causal reads half of its heads from the end: give at least 2 heads")
    return heads if causal else heads - heads // 2


def both_ways(read: Callable[..., Tensor], ahead: int, heads: int, *inputs: Tensor | None) -> Tensor:
    """A causal read of all heads, some of them from the end.

    Args:
        read: `read(part, *inputs)`, the heads `part` of the result `[B, T, ·, …]`, from the first token on.
        ahead: from `heads_ahead`.
        heads: number of heads H.
        inputs: `[B, T, …]` each, or None.

    Returns:
        `[B, T, H, …]`.
    """
    first = read(slice(0, ahead), *inputs)
    if ahead == heads:
        return first
    back = read(slice(ahead, None), *(None if x is None else x.flip(1) for x in inputs))
    return torch.cat((first, back.flip(1)), dim=2)
