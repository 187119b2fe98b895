"""Causal sums in both directions: without causality the first half of the heads reads the sequence from its start, the
other half from its end. Parameters and FLOPs stay the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backbones.mixers.errors import MixerError
from kernels.linear.sums import decayed_sums


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


def sums_of_heads(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTH: Tensor, ahead: int) -> Tensor:
    """`kernels.linear.sums.decayed_sums` with a decay per head, some heads from the end.

    Args:
        q_BTHk: queries `[B, T, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        v_BTHw: values `[B, T, H, w]`.
        log_decay_BTH: logarithms ≤ 0 of the decays `[B, T, H]`.
        ahead: from `heads_ahead`.

    Returns:
        `[B, T, H, w]`.
    """
    tensors = (q_BTHk, k_BTHk, v_BTHw, log_decay_BTH[..., None])
    first = decayed_sums(*(x[:, :, :ahead] for x in tensors))
    if ahead == v_BTHw.shape[2]:
        return first
    return torch.cat((first, decayed_sums(*(x[:, :, ahead:].flip(1) for x in tensors)).flip(1)), dim=2)
