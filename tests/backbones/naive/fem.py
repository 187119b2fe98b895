"""Naive FEM: each host prior provides `read`, a linear map of values; the rest is the layer's formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid, sigmoid, softplus

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged, softmax_weights, visible

Read = Callable[..., list[Tensor]]  # one or more values [B, H, T, d], read under the same weights


STATE_EPS = 1e-5  # of LayerNorm(h), in the authors' code


def normal(x: Tensor, eps: float = 1e-5) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()


def over_rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def low_rank_convolution(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    """c for all projections, by the recurrence."""
    module = mixer.convolution
    R, T = module.out_proj.shape[0], x_BTD.shape[1]
    a, u, s = linear(normal(x_BTD), module.in_proj).split(R, dim=-1)
    a = (-softplus(a)).exp()
    real_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool) if context.mask_BT is None else context.mask_BT
    rows = torch.zeros_like(u)
    for channel in range(R):
        backward = not mixer.config.causal and channel >= R - R // 2
        h_B = torch.zeros_like(u[:, 0, 0])
        for t in reversed(range(T)) if backward else range(T):
            h_B = torch.where(real_BT[:, t], a[:, t, channel] * h_B + u[:, t, channel], h_B)
            rows[:, t, channel] = h_B
    return (over_rms(softplus(s)) * normal(rows, STATE_EPS)) @ module.out_proj


def fem_with(
    mixer: Any,
    x_BTD: Tensor,
    context: Context,
    keys: list[int],
    reader: Callable[[list[Tensor]], Read],
    factor: Callable[[list[Tensor]], Tensor | float] = lambda projected: 1.0,
) -> Tensor:
    """The layer's formula. Off are: convolution, c = 0; lse, F = μ; temperature, λ = 1; gates, g = 1.

    keys: widths of the host's projections. reader: from the projections to the read, `[B, H, T, w]` to the same.
    factor: from the projections to the host's factor on the finished read.
    """
    config = mixer.config
    H, E = config.heads, config.heads * config.d_v
    z = linear(x_BTD, mixer.in_proj.weight)
    if config.convolution:
        z = z * (1 + low_rank_convolution(mixer, x_BTD, context))
    *projected, v, inner, outer = z.split([*keys, E, E * (config.lse and config.temperature), E * config.gates], dim=-1)
    read, v = reader(projected), heads(v, H)
    if config.lse:
        beta = softplus(mixer.w_beta)[:, None]
        top = (beta * v).amax(2, keepdim=True)
        mu, mean = read(v, (beta * v - top).exp())
        F = (mean.log() + top) / beta
        lam = sigmoid(heads(inner, H)) if config.temperature else 1.0
        y = (1 - lam) * mu + lam * F
    else:
        (y,) = read(v)
    if config.gates:
        y = over_rms(softplus(heads(outer, H))) * y
    return linear(merged(y) * factor(projected), mixer.out_proj.weight)


@naive("fem")
def fem(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, K = mixer.config.heads, mixer.config.heads * mixer.config.d_k

    def reader(projected: list[Tensor]) -> Read:
        p = softmax_weights(projected[0], projected[1], H, visible(x_BTD, mixer.config.causal, context))
        return lambda *vs: [p @ v for v in vs]

    return fem_with(mixer, x_BTD, context, [K, K], reader)


def forgetting_reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
    """Softmax whose scores lose the sum of the log-gates between two tokens."""
    H = mixer.config.heads
    q, k = heads(projected[0], H), heads(projected[1], H)
    log_f = logsigmoid(projected[2] + mixer.prior.b_f)
    if context.mask_BT is not None:
        log_f = log_f * context.mask_BT[..., None]
    c = log_f.cumsum(1).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5 - (c[..., :, None] - c[..., None, :]).abs()
    p = scores.masked_fill(~visible(x_BTD, mixer.config.causal, context), -torch.inf).softmax(-1)
    return lambda *vs: [p @ v for v in vs]


def forgetting_widths(mixer: Any) -> list[int]:
    H, k = mixer.widths.heads, mixer.widths.key
    return [H * k, H * k, H]


@naive("fox")
def fox(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, pro = mixer.config.heads, mixer.pro
    *projected, v = linear(x_BTD, mixer.in_proj.weight).split([*forgetting_widths(mixer), mixer.widths.values], dim=-1)
    if pro is not None:
        alpha_k, alpha_v = sigmoid(linear(x_BTD, pro.shift_proj.weight)).chunk(2, dim=-1)
        k = shifted(mixer, heads(projected[1], H), heads(alpha_k, H), context)
        v = merged(shifted(mixer, heads(v, H), heads(alpha_v, H), context))
        projected[:2] = scaled(heads(projected[0], H), pro.q_gain), scaled(k, pro.k_gain)
    (y,) = forgetting_reader(mixer, x_BTD, context, projected)(heads(v, H))
    if pro is None:
        return linear(merged(y), mixer.out_proj.weight)
    return linear(sigmoid(linear(x_BTD, pro.gate_proj.weight)) * scaled(y, pro.out_gain), mixer.out_proj.weight)


def scaled(z_BHTd: Tensor, gain: Tensor) -> Tensor:
    """RMS norm per head with a gain per channel, `[B, T, E]`."""
    return merged(z_BHTd / (z_BHTd.square().mean(-1, keepdim=True) + 1e-6).sqrt()) * gain


def shifted(mixer: Any, z_BHTd: Tensor, alpha_BHT1: Tensor, context: Context) -> Tensor:
    """Mixed with the token before (not causal: half of it and half of the one after), one token at a time."""
    T, zero = z_BHTd.shape[2], torch.zeros_like(z_BHTd[:, :, 0])
    if context.mask_BT is not None:
        z_BHTd = z_BHTd * context.mask_BT[:, None, :, None]
    rows = []
    for t in range(T):
        other = z_BHTd[:, :, t - 1] if t > 0 else zero
        if not mixer.config.causal:
            other = 0.5 * other + 0.5 * (z_BHTd[:, :, t + 1] if t + 1 < T else zero)
        rows.append((1 - alpha_BHT1[:, :, t]) * z_BHTd[:, :, t] + alpha_BHT1[:, :, t] * other)
    return torch.stack(rows, dim=2)


@naive("fem-fox")
def fem_fox(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    return fem_with(
        mixer,
        x_BTD,
        context,
        forgetting_widths(mixer),
        lambda projected: forgetting_reader(mixer, x_BTD, context, projected),
    )
