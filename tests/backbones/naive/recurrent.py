"""Naive recurrent layers: token by token, with an explicit state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu, softplus

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged, rotated
from tests.backbones.naive.host_priors import both_halves, decayed, real_BT


def standard(x: Tensor, eps: float) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()


@naive("mlstm")
def mlstm(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    D, H, real = x_BTD.shape[-1], mixer.config.heads, real_BT(x_BTD, context)
    q, k, v, o = linear(x_BTD, mixer.in_proj.weight).split([D // 2, D // 2, D, D], dim=-1)
    i, f = (
        15 * torch.tanh(z / 15) for z in (linear(x_BTD, mixer.w_gates) + torch.cat((mixer.b_i, mixer.b_f))).chunk(2, -1)
    )
    keys = heads(k, H) * heads(i.exp(), H) / (D // 2 // H) ** 0.5
    values = torch.cat((heads(v, H), torch.ones_like(heads(v, H)[..., :1])), -1)
    decay = heads(torch.sigmoid(f), H)

    def scan(from_end: bool, part: slice) -> Tensor:
        return decayed(heads(q, H)[:, part], keys[:, part], values[:, part], decay[:, part], real, from_end)

    sums = both_halves(mixer, scan, H, 1)
    h = sums[..., :-1] / sums[..., -1:].abs().clamp(min=1)
    return linear(torch.sigmoid(o) * merged(standard(h, 1e-6)) * mixer.gain, mixer.out_proj.weight)


def convolved(u: Tensor, taps: Tensor | None, from_end: bool) -> Tensor:
    """A causal convolution from the first token, or from the last one, one token and one tap at a time; u without
    taps.
    """
    if taps is None:
        return u
    u = u.flip(1) if from_end else u

    def row(t: int) -> Tensor:
        return sum((taps[j] * u[:, t - j] for j in range(min(len(taps), t + 1))), torch.zeros_like(u[:, t]))

    out = torch.stack([row(t) for t in range(u.shape[1])], dim=1)
    return out.flip(1) if from_end else out


@naive("deltanet", "gated-deltanet", "kda")
def delta(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, real = mixer.config.heads, real_BT(x_BTD, context)
    K, V = H * mixer.config.d_k, H * mixer.config.d_v
    kind = type(mixer).__name__
    step_width, gate_width = {"DeltaNet": (0, 0), "GatedDeltaNet": (H, V), "Kda": (V // H, V // H)}[kind]
    projected = linear(x_BTD * real[..., None], mixer.in_proj.weight)
    mixed, rate, step, z = projected.split([2 * K + V, H, step_width, gate_width], dim=-1)
    beta = torch.sigmoid(rate) * (2 if mixer.config.negative else 1) * real[..., None]
    decay, gate = torch.ones_like(beta)[..., None], None
    if kind == "GatedDeltaNet":
        decay, gate = (-mixer.a_log.exp() * softplus(step + mixer.b_delta)).exp()[..., None], silu(z)
    if kind == "Kda":  # one per key channel
        steps = softplus(linear(step, mixer.w_decay) + mixer.b_delta).unflatten(-1, (H, -1))
        decay, gate = (-mixer.a_log.exp()[:, None] * steps).exp(), torch.sigmoid(linear(z, mixer.w_gate, mixer.b_gate))
    decay = torch.where(real[..., None, None], decay, 1.0)

    def scan(from_end: bool, part: slice) -> Tensor:
        q, k, v = (
            heads(each, H)[:, part] for each in silu(convolved(mixed, mixer.taps, from_end)).split([K, K, V], -1)
        )
        q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
        memory, rows = torch.zeros(*k.shape[:2], K // H, V // H, dtype=x_BTD.dtype), [torch.empty(0)] * q.shape[2]
        for t in reversed(range(len(rows))) if from_end else range(len(rows)):
            memory = decay[:, t, part, :, None] * memory
            error = v[:, :, t, None] - k[:, :, t, None] @ memory
            memory = memory + k[:, :, t, :, None] @ (beta[:, t, part, None, None] * error)
            rows[t] = (q[:, :, t, None] @ memory)[:, :, 0] / (K // H) ** 0.5
        return torch.stack(rows, dim=2)

    o = both_halves(mixer, scan, H, 1)
    y = merged(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.gain)
    return linear(y if gate is None else y * gate, mixer.out_proj.weight)


@naive("mamba2")
def mamba2(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, N, real = mixer.config.heads, mixer.config.states, real_BT(x_BTD, context)
    V = H * mixer.config.d_v
    z, mixed, raw = linear(x_BTD * real[..., None], mixer.in_proj.weight).split([V, V + 2 * N, H], dim=-1)
    delta = heads(softplus(raw + mixer.b_delta), H)
    decay = (-delta * mixer.a_log.exp()[:, None, None]).exp()

    def scan(from_end: bool, part: slice) -> Tensor:
        bias = 0.0 if mixer.bias is None else mixer.bias
        x, b, c = silu(convolved(mixed, mixer.taps, from_end) + bias).split([V, N, N], dim=-1)
        x = heads(x, H)[:, part]
        count = x.shape[1]
        b, c = (each[:, None].expand(-1, count, -1, -1) for each in (b, c))
        read = decayed(c, b, delta[:, part] * x, decay[:, part], real, from_end)
        return read + mixer.skip[part, None, None] * x

    y = merged(both_halves(mixer, scan, H, 1)) * silu(z)
    return linear(y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.gain, mixer.out_proj.weight)


@naive("gla-layer", "retnet")
def gated_linear(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, real = mixer.config.heads, real_BT(x_BTD, context)
    K, V = H * mixer.config.d_k, H * mixer.config.d_v
    q, k, v, r = linear(x_BTD, mixer.in_proj.weight).split([K, K, V, V], dim=-1)
    fixed = type(mixer).__name__ == "RetNet"
    if fixed:
        decay = torch.tensor([1 - 2.0 ** (-5 - h) for h in range(H)], dtype=x_BTD.dtype)[None, :, None, None]
        decay = decay.expand(len(x_BTD), H, x_BTD.shape[1], 1)
    else:
        decay = heads(torch.sigmoid(x_BTD @ mixer.w_down.T @ mixer.w_up.T + mixer.b_decay) ** (1 / 16), H)

    def scan(from_end: bool, part: slice) -> Tensor:
        pair = [heads(z, H)[:, part] for z in (q, k)]
        if fixed:  # positions count from where reading starts
            pair = [rotated(z.flip(2)).flip(2) if from_end else rotated(z) for z in pair]
        return decayed(pair[0] / (K // H) ** 0.5, pair[1], heads(v, H)[:, part], decay[:, part], real, from_end)

    o = standard(both_halves(mixer, scan, H, 1), 1e-5)
    return linear(silu(r) * merged(o if fixed else o * mixer.gain), mixer.out_proj.weight)


@naive("rwkv7")
def rwkv7(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
    H, d = mixer.config.heads, x_BTD.shape[-1] // mixer.config.heads
    x_BTD = x_BTD * real_BT(x_BTD, context)[..., None]

    def scan(from_end: bool, part: slice) -> Tensor:
        x = x_BTD.flip(1) if from_end else x_BTD
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        x_r, x_w, x_k, x_v, x_a, x_g = ((1 - mu) * x + mu * before for mu in mixer.mu)

        def of_part(z: Tensor) -> Tensor:  # rows of a matrix, or entries of a vector
            return z.unflatten(0, (H, -1))[part].flatten(0, 1)

        n = len(range(H)[part])
        r, k, v = (linear(z, of_part(w)) for z, w in ((x_r, mixer.w_r), (x_k, mixer.w_k), (x_v, mixer.w_v)))
        w = of_part(mixer.w_start) + linear(torch.tanh(linear(x_w, mixer.w_down)), of_part(mixer.w_up))
        w = (-(2.718281828459045**-0.5) * torch.sigmoid(w)).exp()
        a = torch.sigmoid(of_part(mixer.a_start) + linear(linear(x_a, mixer.a_down), of_part(mixer.a_up)))
        g = linear(torch.sigmoid(linear(x_g, mixer.g_down)), of_part(mixer.g_up))
        kappa = (k * of_part(mixer.k_k)).unflatten(-1, (n, d))
        kappa = kappa / kappa.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)
        k = k * (1 + (a - 1) * of_part(mixer.k_a))
        r, k, w, a = (z.unflatten(-1, (n, d)) for z in (r, k, w, a))
        v, g = (z.unflatten(-1, (n, -1)) for z in (v, g))
        memory, rows = torch.zeros(len(x), n, v.shape[-1], d, dtype=x.dtype), []
        for t in range(x.shape[1]):  # [value, key], as in the paper
            removed = (memory @ kappa[:, t, :, :, None]) @ (kappa * a)[:, t, :, None]
            memory = memory * w[:, t, :, None] - removed + v[:, t, :, :, None] @ k[:, t, :, None]
            rows.append((memory @ r[:, t, :, :, None])[..., 0])
        o = standard(torch.stack(rows, dim=1), 1e-5 * d)
        o = o * of_part(mixer.gain).unflatten(0, (n, -1)) + of_part(mixer.bias).unflatten(0, (n, -1))
        own = (r * k * of_part(mixer.r_k).unflatten(0, (n, d))).sum(-1, keepdim=True)
        y = ((o + own * v) * g).transpose(1, 2)
        return y.flip(2) if from_end else y

    return linear(merged(both_halves(mixer, scan, H, 1)), mixer.out_proj.weight)
