"""Naive deconstructed attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, sigmoid

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged, rotated, softmax_weights, visible


def split(mixer: Any, source: Tensor, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    W_q, W_k, W_v = mixer.in_proj.weight.chunk(3)
    return linear(source, W_q), linear(source, W_k), linear(x_BTD, W_v)


@naive("static-qk")
def static_qk(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    assert context.embedding_BTD is not None
    q, k, v = split(mixer, context.embedding_BTD, x_BTD)
    p = softmax_weights(q, k, mixer.config.heads, visible(x_BTD, mixer.config.causal, context))
    return linear(merged(p @ heads(v, mixer.config.heads)), mixer.out_proj.weight)


@naive("random-qk", "fixed-qk")
def constant_qk(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    """Row by row: n real tokens use the weights of the first n tokens of the constant row."""
    assert context.constant_row
    B, T, _ = x_BTD.shape
    q, k, v = split(mixer, x_BTD[-1:], x_BTD)
    sees = torch.ones(T, T, dtype=torch.bool).tril() if mixer.config.causal else torch.ones(T, T, dtype=torch.bool)
    p_by_length: dict[int, Tensor] = {}
    out = torch.zeros_like(v)
    for b in range(B):
        n = T if context.mask_BT is None else int(context.mask_BT[b].sum())
        if n not in p_by_length:
            p_by_length[n] = softmax_weights(q[:, :n], k[:, :n], mixer.config.heads, sees[:n, :n])
        out[b : b + 1, T - n :] = merged(p_by_length[n] @ heads(v[b : b + 1, T - n :], mixer.config.heads))
    return linear(out, mixer.out_proj.weight)


@naive("taylor")
def taylor(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    """By a T×T map up to as many tokens as there are features per head, by sums over features beyond."""
    H, causal, T = mixer.config.heads, mixer.config.causal, x_BTD.shape[1]
    q, k, v = split(mixer, x_BTD, x_BTD)
    q, k, v = rotated(heads(q, H)), rotated(heads(k, H)), heads(v, H)
    d = v.shape[-1]
    if 1 + d + d * (d + 1) // 2 >= T:
        s = (q @ k.transpose(-1, -2)) / d**0.5
        w = (1 + s + s**2 / 2) * visible(x_BTD, causal, context)
        return linear(merged(w @ v / w.sum(-1, keepdim=True)), mixer.out_proj.weight)
    v, q, k = torch.cat([v, torch.ones_like(v[..., :1])], -1), polynomial(q), polynomial(k)
    v = v if context.mask_BT is None else v * context.mask_BT[:, None, :, None]
    updates = [k[:, :, t, :, None] @ v[:, :, t, None] for t in range(T)]
    reads, total = [], torch.zeros_like(updates[0]) if causal else torch.stack(updates).sum(0)
    for t in range(T):
        total = total + updates[t] if causal else total
        reads.append((q[:, :, t, None] @ total)[..., 0, :])
    y = torch.stack(reads, 2)
    y = y if context.mask_BT is None else y + (y[..., -1:] == 0)  # padding itself sees nothing
    return linear(merged(y[..., :-1] / y[..., -1:]), mixer.out_proj.weight)


def polynomial(x: Tensor) -> Tensor:
    """Features of 1 + s + s²/2, equal products of channels counted once."""
    d = x.shape[-1]
    pairs = [x[..., a] * x[..., b] * ((1 if a < b else 0.5) / d) ** 0.5 for a in range(d) for b in range(a, d)]
    return torch.cat([torch.ones_like(x[..., :1]), x / d**0.25, torch.stack(pairs, -1)], -1)


@naive("query-free")
def query_free(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    """A recurrence over (numerator, denominator) with one shift per row: enough for the small logits of a test."""
    H, causal, T = mixer.config.heads, mixer.config.causal, x_BTD.shape[1]
    q, k, v = (heads(z, H) for z in split(mixer, x_BTD, x_BTD))
    q = q * sigmoid(q)
    if mixer.config.qk_norm:
        q, k = (
            z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
            for z, gain in ((q, mixer.gain_q), (k, mixer.gain_k))
        )
    logits_BHT = (q[..., None, :] @ k[..., None])[..., 0, 0] / v.shape[-1] ** 0.5
    e_BHT = (logits_BHT - logits_BHT.amax(-1, keepdim=True)).exp()
    if context.mask_BT is not None:
        e_BHT = e_BHT * context.mask_BT[:, None]
    mass_BHT = e_BHT.cumsum(-1) if causal else e_BHT.sum(-1, keepdim=True).expand_as(e_BHT)
    if not causal:
        p_BHTT = (e_BHT / mass_BHT)[:, :, None].expand(-1, -1, T, -1)
        return linear(merged((p_BHTT[:, :, :1] @ v).expand(-1, -1, T, -1)), mixer.out_proj.weight)
    y, rows = torch.zeros_like(v[:, :, 0]), []
    for t in range(T):
        s = torch.nan_to_num(e_BHT[..., t] / mass_BHT[..., t])
        both = torch.stack([y, v[:, :, t]], -1)  # [B, H, d, 2]
        y = (both @ torch.stack([1 - s, s], -1)[..., None])[..., 0]
        rows.append(y)
    return linear(merged(torch.stack(rows, 2)), mixer.out_proj.weight)
