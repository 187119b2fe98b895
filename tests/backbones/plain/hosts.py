"""Plain forms of the linear-time hosts, alone and under FEM: one token after another, with an explicit state.

A reader is the host's read: a linear map of values `[B, H, T, w]` divided by the same map of ones. Every product that enters or reads a
state is a matmul or an einsum, so that PyTorch's counter sees what the recurrence costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu, linear, sigmoid, softplus

from backbones.mixers.base import Context
from tests.backbones.plain import plain
from tests.backbones.plain.attention import heads, merged
from tests.backbones.plain.fem import Read, fem_with, over_rms

Reader = Callable[[Any, Tensor, Context, list[Tensor]], Read]
RANK, STATES = 16, 16


def real_BT(x_BTD: Tensor, context: Context) -> Tensor:
    return torch.ones(x_BTD.shape[:2], dtype=torch.bool) if context.mask_BT is None else context.mask_BT


def both_halves(mixer: Any, scan: Callable[[bool], Tensor], count: int, dim: int) -> Tensor:
    """Causal: the scan from the start. Otherwise its first half (of `count` along `dim`), and the other half of the one from the end."""
    if mixer.config.causal:
        return scan(False)
    ahead = count - count // 2
    return torch.cat((scan(False).narrow(dim, 0, ahead), scan(True).narrow(dim, ahead, count - ahead)), dim)


def decayed(q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, real: Tensor, from_end: bool) -> Tensor:
    """`S = a S + k vᵀ`, `out = q S`; heads first, `[B, H, T, …]`."""
    T = q.shape[2]
    out, S = torch.zeros_like(v), q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3])
    for t in reversed(range(T)) if from_end else range(T):
        step = k[:, :, t, :, None] @ v[:, :, t, None, :]
        S = torch.where(real[:, t, None, None, None], (S if a is None else S * a[:, :, t, :, None]) + step, S)
        out[:, :, t] = torch.einsum("bhk,bhkw->bhw", q[:, :, t], S)
    return out


def linear_reader(decay: Callable[[Any, Tensor], Tensor | None]) -> Reader:
    def reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
        H, real = mixer.config.heads, real_BT(x_BTD, context)
        q, k = (elu(heads(z, H)) + 1 for z in projected)
        a = decay(mixer, x_BTD)

        def read(v: Tensor) -> Tensor:
            values = torch.cat((v, torch.ones_like(v[..., :1])), -1)
            if a is None and not mixer.config.causal:
                state = k.transpose(-1, -2) @ (values * real[:, None, :, None])
                out = q @ state
            else:
                out = both_halves(mixer, lambda from_end: decayed(q, k, values, a, real, from_end), H, 1)
            return torch.where(real[:, None, :, None], out[..., :-1] / out[..., -1:], 1.0)

        return read

    return reader


def gla_decay(mixer: Any, x_BTD: Tensor) -> Tensor:
    prior = mixer.prior
    return heads(sigmoid(linear(linear(x_BTD, prior.w_down), prior.w_up) + prior.bias) ** (1 / 16), mixer.config.heads)


def simple_decay(mixer: Any, x_BTD: Tensor) -> Tensor:
    return heads(sigmoid(linear(x_BTD, mixer.prior.weight) + mixer.prior.bias) ** (1 / 16), mixer.config.heads)


def fixed_decay(mixer: Any, x_BTD: Tensor) -> Tensor:
    H = mixer.config.heads
    ahead = H if mixer.config.causal else H - H // 2
    a = torch.tensor([1 - 2.0 ** (-5 - (h if h < ahead else h - ahead)) for h in range(H)], dtype=x_BTD.dtype)
    return a[:, None, None].expand(x_BTD.shape[0], H, x_BTD.shape[1], 1)


def aft_reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
    H, real = mixer.config.heads, real_BT(x_BTD, context)
    k = projected[1]

    def read(v: Tensor) -> Tensor:
        v_BTE = merged(v)
        T, E = v_BTE.shape[1:]

        def scan(from_end: bool) -> Tensor:
            out = torch.ones_like(v_BTE)
            for t in range(T):
                sees = real & ((torch.arange(T) >= t) if from_end else (torch.arange(T) <= t))
                weights = k.masked_fill(~sees[..., None], -torch.inf).softmax(1)
                out[:, t] = torch.where(sees.any(1, keepdim=True), (weights * v_BTE).nan_to_num().sum(1), 1.0)
            return out

        return heads(both_halves(mixer, scan, E, 2), H)

    return read


def ssm_reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
    H, real, prior = mixer.config.heads, real_BT(x_BTD, context), mixer.prior
    delta = softplus(linear(linear(x_BTD, prior.w_down), prior.w_up) + prior.bias) * real[..., None]
    b, c = softplus(linear(x_BTD, prior.w_states)).split(STATES, dim=-1)
    A, skip = -prior.a_log.T.exp(), softplus(prior.w_skip)

    def read(v: Tensor) -> Tensor:
        v_BTE = merged(v)
        T, E = v_BTE.shape[1:]

        def sums(values: Tensor, from_end: bool) -> Tensor:
            out, s = torch.zeros_like(values), values.new_zeros(values.shape[0], E, STATES)
            for t in reversed(range(T)) if from_end else range(T):
                s = (delta[:, t, :, None] * A).exp() * s + (delta[:, t] * values[:, t])[..., None] @ b[:, t, None]
                out[:, t] = torch.einsum("ben,bn->be", s, c[:, t]) + skip * values[:, t]
            return out

        def scan(from_end: bool) -> Tensor:
            return sums(v_BTE, from_end) / sums(torch.ones_like(v_BTE), from_end)

        return heads(both_halves(mixer, scan, E, 2), H)

    return read


LINEAR: dict[str, Reader] = {
    "linear": linear_reader(lambda mixer, x_BTD: None),
    "gla": linear_reader(gla_decay),
    "simple-gla": linear_reader(simple_decay),
    "retention": linear_reader(fixed_decay),
}


def add(name: str, reader: Reader) -> None:
    """Offers the plain forms of the host and of FEM over it."""

    def widths(mixer: Any) -> list[int]:
        w = mixer.widths
        return {"aft": [w.values] * 2, "ssm": []}.get(name, [w.heads * w.key] * 2)

    @plain(name)
    def host(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
        *projected, v = linear(x_BTD, mixer.in_proj.weight).split([*widths(mixer), mixer.widths.values], dim=-1)
        y_BTE = merged(reader(mixer, x_BTD, context, projected)(heads(v, mixer.config.heads)))
        if name == "aft":
            y_BTE = y_BTE * over_rms(softplus(projected[0]))
        return linear(y_BTE, mixer.out_proj.weight)

    @plain(f"fem-{name}")
    def fem(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
        def factor(projected: list[Tensor]) -> Tensor | float:
            return over_rms(softplus(projected[0])) if name == "aft" else 1.0

        return fem_with(mixer, x_BTD, context, widths(mixer), lambda projected: reader(mixer, x_BTD, context, projected), factor)


for each, its_reader in {**LINEAR, "aft": aft_reader, "ssm": ssm_reader}.items():
    add(each, its_reader)
