"""Naive softmax attention and no-mixing, and functions for those of host priors and FEM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from backbones.mixers.base import Context
from tests.backbones.naive import naive


def heads(x_BTE: Tensor, count: int) -> Tensor:
    """`[B, T, E]` to `[B, H, T, d]`."""
    return x_BTE.unflatten(-1, (count, -1)).transpose(1, 2)


def merged(x_BHTd: Tensor) -> Tensor:
    return x_BHTd.transpose(1, 2).flatten(2)


def visible(x_BTD: Tensor, causal: bool, context: Context) -> Tensor:
    """`[B, 1, T, T]`: what row t sees. A row that would see nothing sees itself, so that its output is finite."""
    T = x_BTD.shape[1]
    sees = torch.ones(1, 1, T, T, dtype=torch.bool)
    if causal:
        sees = sees.tril()
    if context.mask_BT is not None:
        sees = (sees & context.mask_BT[:, None, None]) | torch.eye(T, dtype=torch.bool)
    return sees


def rotated(x_BHTk: Tensor) -> Tensor:
    """Rotary positions, one pair of channels at a time."""
    out, width = torch.empty_like(x_BHTk), x_BHTk.shape[-1]
    t = torch.arange(x_BHTk.shape[2], dtype=torch.float64)
    for c in range(0, width, 2):
        angle = t * 10_000.0 ** (-c / width)
        a, b = x_BHTk[..., c], x_BHTk[..., c + 1]
        out[..., c] = a * angle.cos() - b * angle.sin()
        out[..., c + 1] = a * angle.sin() + b * angle.cos()
    return out


def softmax_weights(q_BTK: Tensor, k_BTK: Tensor, count: int, sees: Tensor) -> Tensor:
    """`[B, H, T, T]`."""
    q, k = rotated(heads(q_BTK, count)), rotated(heads(k_BTK, count))
    scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
    return scores.masked_fill(~sees, -torch.inf).softmax(-1)


@naive("softmax")
def softmax(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    D, H = x_BTD.shape[-1], mixer.config.heads
    q, k, v = linear(x_BTD, mixer.in_proj.weight).split(D, dim=-1)
    p = softmax_weights(q, k, H, visible(x_BTD, mixer.config.causal, context))
    return linear(merged(p @ heads(v, H)), mixer.out_proj.weight)


@naive("no-mixing")
def no_mixing(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    gate, up = linear(x_BTD, mixer.in_proj.weight).chunk(2, dim=-1)
    return linear(silu(gate) * up, mixer.out_proj.weight)
