"""Naive linear-time priors, alone and under FEM: token by token, with an explicit state.

A reader is a prior's read: a linear map of one or two values `[B, H, T, d]`, divided by the same map of ones. Every
product that updates or reads a state is a matmul or an einsum, so that PyTorch's counter counts the recurrence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu, linear, sigmoid, softplus

from backbones.mixers.base import Context
from tests.backbones.naive import naive
from tests.backbones.naive.attention import heads, merged
from tests.backbones.naive.fem import Read, fem_with, over_rms

Reader = Callable[[Any, Tensor, Context, list[Tensor]], Read]
RANK, STATES = 16, 16


def real_BT(x_BTD: Tensor, context: Context) -> Tensor:
    return torch.ones(x_BTD.shape[:2], dtype=torch.bool) if context.mask_BT is None else context.mask_BT


def both_halves(mixer: Any, scan: Callable[[bool, slice], Tensor], count: int, dim: int) -> Tensor:
    """Causal: the scan from the start. Otherwise the first half (of `count` along `dim`) is scanned from the start, the
    other half from the end.
    """
    if mixer.config.causal:
        return scan(False, slice(0, count))
    ahead = count - count // 2
    return torch.cat((scan(False, slice(0, ahead)), scan(True, slice(ahead, count))), dim)


def decayed(q: Tensor, k: Tensor, v: Tensor, a: Tensor | None, real: Tensor, from_end: bool) -> Tensor:
    """`S = a S + k vᵀ`, `out = q S`; heads first, `[B, H, T, …]`. Padding is skipped."""
    counts = real[:, None, :, None, None]
    entering = (k[..., :, None] @ v[..., None, :]) * counts
    kept = torch.ones_like(k[..., None]) if a is None else torch.where(counts, a[..., None], 1.0)
    return (q[..., None, :] @ recurrence(kept, entering, 2, from_end))[..., 0, :]


def recurrence(a: Tensor, x: Tensor, dim: int, from_end: bool) -> Tensor:
    """`h_t = a_t h_{t−1} + x_t`, token by token."""
    steps = list(zip(a.unbind(dim), x.unbind(dim), strict=True))
    rows, h = [], torch.zeros_like(x.select(dim, 0))
    for a_t, x_t in reversed(steps) if from_end else steps:
        h = a_t * h + x_t
        rows.append(h)
    return torch.stack(rows[::-1] if from_end else rows, dim)


def linear_reader(decay: Callable[[Any, Tensor], Tensor | None]) -> Reader:
    def reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
        H, real = mixer.config.heads, real_BT(x_BTD, context)
        q, k = (elu(heads(z, H)) + 1 for z in projected)
        a = decay(mixer, x_BTD)

        def read(*vs: Tensor) -> list[Tensor]:
            values = torch.cat((*vs, torch.ones_like(vs[0][..., :1])), -1)

            def scan(from_end: bool, part: slice) -> Tensor:
                return decayed(
                    q[:, part], k[:, part], values[:, part], None if a is None else a[:, part], real, from_end
                )

            if a is None and not mixer.config.causal:
                out = q @ (k.transpose(-1, -2) @ (values * real[:, None, :, None]))
            else:
                out = both_halves(mixer, scan, H, 1)
            mean = torch.where(real[:, None, :, None], out[..., :-1] / out[..., -1:], 1.0)
            return list(mean.chunk(len(vs), dim=-1))

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


def query_factor(mixer: Any, projected: list[Tensor]) -> Tensor:
    """AFT's RMS(softplus(q)), head after head."""
    scale = softplus(projected[0])
    per_head = scale.shape[-1] // mixer.config.heads
    return torch.cat([over_rms(part) for part in scale.split(per_head, dim=-1)], dim=-1)


def aft_reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
    H, real = mixer.config.heads, real_BT(x_BTD, context)
    k = projected[1]

    def read_one(v: Tensor) -> Tensor:
        v_BTE = merged(v)
        T, E = v_BTE.shape[1:]

        def scan(from_end: bool, part: slice) -> Tensor:
            sees = torch.ones(T, T, dtype=torch.bool)
            sees = ((sees.triu() if from_end else sees.tril()) & real[:, None])[..., None]
            weights = k[:, None, :, part].masked_fill(~sees, -torch.inf).softmax(2)
            return torch.where(sees.any(2), (weights * v_BTE[:, None, :, part]).nan_to_num().sum(2), 1.0)

        return heads(both_halves(mixer, scan, E, 2), H)

    return lambda *vs: [read_one(v) for v in vs]


def ssm_reader(mixer: Any, x_BTD: Tensor, context: Context, projected: list[Tensor]) -> Read:
    H, real, prior = mixer.config.heads, real_BT(x_BTD, context), mixer.prior
    delta = softplus(linear(linear(x_BTD, prior.w_down), prior.w_up) + prior.bias) * real[..., None]
    b, c = softplus(linear(x_BTD, prior.w_states)).split(STATES, dim=-1)
    A, skip = -prior.a_log.T.exp(), softplus(prior.w_skip)

    def sums(values: Tensor) -> Tensor:
        def scan(from_end: bool, part: slice) -> Tensor:
            v, step = values[..., part], delta[..., part]
            states = recurrence((step[..., None] * A[part]).exp(), (step * v)[..., None] @ b[:, :, None], 1, from_end)
            return (states @ c[..., None])[..., 0] + skip[part] * v

        return both_halves(mixer, scan, values.shape[2], 2)

    def read(*vs: Tensor) -> list[Tensor]:
        ones = sums(torch.ones_like(merged(vs[0])))
        return [heads(sums(merged(v)) / ones, H) for v in vs]

    return read


LINEAR: dict[str, Reader] = {
    "linear": linear_reader(lambda mixer, x_BTD: None),
    "gla": linear_reader(gla_decay),
    "simple-gla": linear_reader(simple_decay),
    "retention": linear_reader(fixed_decay),
}


def add(name: str, reader: Reader) -> None:
    """Adds the references of the prior alone and of FEM over it."""

    def widths(mixer: Any) -> list[int]:
        w = mixer.widths
        return {"aft": [w.values] * 2, "ssm": []}.get(name, [w.heads * w.key] * 2)

    @naive(name)
    def host(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
        *projected, v = linear(x_BTD, mixer.in_proj.weight).split([*widths(mixer), mixer.widths.values], dim=-1)
        y_BTE = merged(reader(mixer, x_BTD, context, projected)(heads(v, mixer.config.heads))[0])
        if name == "aft":
            y_BTE = y_BTE * query_factor(mixer, projected)
        return linear(y_BTE, mixer.out_proj.weight)

    @naive(f"fem-{name}")
    def fem(mixer: Any, x_BTD: Tensor, context: Context) -> Tensor:
        def factor(projected: list[Tensor]) -> Tensor | float:
            return query_factor(mixer, projected) if name == "aft" else 1.0

        return fem_with(
            mixer, x_BTD, context, widths(mixer), lambda projected: reader(mixer, x_BTD, context, projected), factor
        )


for each, its_reader in {**LINEAR, "aft": aft_reader, "ssm": ssm_reader}.items():
    add(each, its_reader)
