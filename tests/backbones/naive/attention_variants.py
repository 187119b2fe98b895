"""Naive softmax attention with gates, decays, sinks, shared heads or short convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged, rotated, softmax_weights, visible


def read(mixer: Any, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """The read and the values of softmax attention, `[B, H, T, d]` each."""
    q, k, v = linear(x_BTD, mixer.in_proj.weight).chunk(3, dim=-1)
    H = mixer.config.heads
    p = softmax_weights(q, k, H, visible(x_BTD, mixer.config.causal, context))
    return p @ heads(v, H), heads(v, H)


@naive("gated-attention")
def gated(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    o, _ = read(mixer, x_BTD, context)
    gates = 1 / (1 + torch.exp(-linear(x_BTD, mixer.gate_proj.weight)))
    return linear(merged(o * heads(gates, mixer.config.heads)), mixer.out_proj.weight)


@naive("differential")
def differential(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, D = mixer.config.heads, x_BTD.shape[-1]
    if mixer.config.variant == "v2":
        return second_differential(mixer, x_BTD, context)
    q, k, v = linear(x_BTD, mixer.in_proj.weight).chunk(3, dim=-1)
    p = softmax_weights(q, k, H, visible(x_BTD, mixer.config.causal, context))
    first = 0.8 - 0.6 * math.exp(-0.3 * mixer.layer_index)
    q1, k1, q2, k2 = mixer.lambdas
    lam = torch.exp(q1 @ k1) - torch.exp(q2 @ k2) + first
    outputs = []
    for pair in range(H // 2):
        values = v[..., pair * 2 * D // H : (pair + 1) * 2 * D // H]
        o = p[:, 2 * pair] @ values - lam * (p[:, 2 * pair + 1] @ values)
        outputs.append((1 - first) * o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.gain)
    return linear(torch.cat(outputs, dim=-1), mixer.out_proj.weight)


def second_differential(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    """One head of the output after the other: two maps of queries on the keys that it shares with one more head."""
    H, D, sees = mixer.config.heads, x_BTD.shape[-1], visible(x_BTD, mixer.config.causal, context)
    d = D // H
    q, k, v = linear(x_BTD, mixer.in_proj.weight).split([2 * D, D // 2, D // 2], dim=-1)
    factors = 1 / (1 + torch.exp(-linear(x_BTD, mixer.lambda_proj.weight)))
    outputs = []
    for h in range(H):
        group = slice(h // 2 * d, (h // 2 + 1) * d)
        first, second = (
            softmax_weights(q[..., m * d : (m + 1) * d], k[..., group], 1, sees)[:, 0] @ v[..., group]
            for m in (2 * h, 2 * h + 1)
        )
        outputs.append(first - factors[..., h, None] * second)
    return linear(torch.cat(outputs, dim=-1), mixer.out_proj.weight)


@naive("xsa")
def exclusive(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    o, v = read(mixer, x_BTD, context)
    own = v / v.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-4)
    along = (o * own).sum(-1, keepdim=True)
    return linear(merged(o - mixer.alpha.tanh()[:, None, None] * along * own), mixer.out_proj.weight)


@naive("swa")
def window(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    q, k, v = linear(x_BTD, mixer.in_proj.weight).chunk(3, dim=-1)
    H, w = mixer.config.heads, mixer.config.window
    sees = visible(x_BTD, mixer.config.causal, context).clone()
    for t in range(x_BTD.shape[1]):
        sees[:, :, t, : max(0, t - w + 1)] = False
    sees = sees | torch.eye(x_BTD.shape[1], dtype=torch.bool)
    return linear(merged(softmax_weights(q, k, H, sees) @ heads(v, H)), mixer.out_proj.weight)


@naive("sink")
def sink(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    q, k, v = (heads(z, mixer.config.heads) for z in linear(x_BTD, mixer.in_proj.weight).chunk(3, dim=-1))
    scores = (rotated(q) @ rotated(k).transpose(-1, -2)) / q.shape[-1] ** 0.5
    weights = scores.exp() * visible(x_BTD, mixer.config.causal, context)
    p = weights / (weights.sum(-1, keepdim=True) + mixer.sink.exp()[:, None, None])
    return linear(merged(p @ v), mixer.out_proj.weight)


@naive("gqa")
def grouped(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, g = mixer.config.heads, mixer.config.group
    d = mixer.out_proj.weight.shape[1] // H
    projected = linear(x_BTD, mixer.in_proj.weight)
    q, k, v = projected[..., : H * d], projected[..., H * d : (H + H // g) * d], projected[..., (H + H // g) * d :]
    copied = [torch.stack([heads(z, H // g)[:, h // g] for h in range(H)], dim=1) for z in (k, v)]
    p = softmax_weights(q, merged(copied[0]), H, visible(x_BTD, mixer.config.causal, context))
    return linear(merged(p @ copied[1]), mixer.out_proj.weight)


def convolved(z_BTc: Tensor, taps_Jc: Tensor | None, causal: bool) -> Tensor:
    """z plus its convolution, one token and one tap at a time."""
    if taps_Jc is None:
        return z_BTc
    rows, T = [], z_BTc.shape[1]
    for t in range(T):
        row = z_BTc[:, t] * (1 + taps_Jc[0])
        for j in range(1, len(taps_Jc)):
            if t - j >= 0:
                row = row + taps_Jc[j] * z_BTc[:, t - j]
            if not causal and t + j < T:
                row = row + taps_Jc[j] * z_BTc[:, t + j]
        rows.append(row)
    return torch.stack(rows, dim=1)


@naive("canon")
def canon(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    causal, H = mixer.config.causal, mixer.config.heads
    real = 1.0 if context.mask_BT is None else context.mask_BT[..., None]
    u = convolved(x_BTD * real, mixer.taps_a, causal) * real
    q, k, v = convolved(linear(u, mixer.in_proj.weight), mixer.taps_b, causal).chunk(3, dim=-1)
    p = softmax_weights(q, k, H, visible(x_BTD, causal, context))
    return linear(merged(p @ heads(v, H)), mixer.out_proj.weight)
