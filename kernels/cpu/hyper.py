"""Lag mixing by `hyper_forward.cpp` and `hyper_backward.cpp`; fp32 or fp64, on a CPU.

Arguments as in `kernels.hyper.lag_mixing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.cpu.call import call
from kernels.cpu.sizes import SIZES
from kernels.numerics import lag_layout
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.lag_layout import NORM_EPS, Layout, reversed_table

ROWS = 48  # of a block
PARTS = 8  # of the sequences of a head, with separate gradients of the tables: sums don't depend on the threads


@dataclass(frozen=True)
class Options:
    layout: Layout
    mixed: tuple[bool, ...]  # which mixings are present: one per score set, then the one after the activation
    mask_BT: Tensor | None
    rows: int

    def mixings(self, flat: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """(first, second, diagonal, control) of each that is present."""
        return [flat[i : i + 4] for i in range(0, len(flat), 4)]


def computes(mixings: Sequence[Sequence[Tensor]]) -> bool:
    """Whether the compiled library takes mixings of these ranks."""
    ranks = {first.shape[-1] for first, *_ in mixings}
    return len(ranks) <= 1 and max(ranks, default=0) <= SIZES.max_rank


class LagMix(torch.autograd.Function):
    """(options, q `[sets, H, B, S, d]`, k `[sets, H, B, T, d]`, v `[H, B, T, w]`, four tensors of each mixing) → out
    `[H, B, S, w]`.
    """

    @staticmethod
    def forward(ctx: Any, options: Options, q: Tensor, k: Tensor, v: Tensor, *flat: Tensor) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        shared = _shared(options, q, k, v, flat)
        out = lag_layout.empty((*q.shape[1:4], v.shape[-1]), v)
        inverse = lag_layout.empty(q.shape[1:4], v)
        call("lag_mix", [*shared, out, inverse], _sizes(options, q, v, shared[3], 1), _work(q, v), NORM_EPS)
        ctx.options = options
        ctx.save_for_backward(q, k, v, out, inverse, *flat)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, inverse, *flat = ctx.saved_tensors
        options: Options = ctx.options
        shared = _shared(options, q, k, v, flat)
        tables_JHKL, control = shared[3:5]
        parts = min(PARTS, v.shape[1])
        to_q, to_k, to_v = lag_layout.empty(q.shape, q), torch.zeros_like(k), torch.zeros_like(v)
        to_tables = v.new_zeros(v.shape[0], parts, len(tables_JHKL), *tables_JHKL.shape[2:])
        to_control = lag_layout.empty(control.shape, control)
        tensors = [*shared, out, inverse, grad.to(v.dtype).contiguous(), to_q, to_k, to_v, to_tables, to_control]
        call("lag_mix_backward", tensors, _sizes(options, q, v, tables_JHKL, parts), _work(q, v))
        return None, to_q, to_k, to_v, *_unpacked(to_tables.sum(1), to_control, options.layout)


def _shared(options: Options, q: Tensor, k: Tensor, v: Tensor, flat: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of forward and backward; without a mask an empty tensor is passed."""
    mask = v.new_empty(0) if options.mask_BT is None else options.mask_BT.to(v.dtype).contiguous()
    return [q, k, v, *_packed(options.mixings(flat), options.layout, v), mask]


def _packed(mixings: Sequence[Sequence[Tensor]], layout: Layout, like: Tensor) -> tuple[Tensor, Tensor]:
    """Tables `[mixings, H, 2r + 1, L']` in the order of columns: r rows of first, r of second, 1 + p; and controls."""
    if not mixings:
        return like.new_empty(0, like.shape[0], 1, 0), like.new_empty(0)
    tables = [torch.cat([first, second, diagonal[..., None] + 1.0], -1) for first, second, diagonal, _ in mixings]
    columns = torch.stack([pad(reversed_table(t, layout).transpose(1, 2), (0, SIZES.table_padding)) for t in tables])
    return columns, torch.stack([control for *_, control in mixings])


def _unpacked(tables_HJKL: Tensor, control_J: Tensor, layout: Layout) -> list[Tensor]:
    """The inverse of `_packed`, for gradients."""
    found = []
    for table_HKL, control in zip(tables_HJKL.unbind(1), control_J, strict=True):
        table_HLK = reversed_table(table_HKL[..., : -SIZES.table_padding].transpose(1, 2), layout)
        rank = table_HLK.shape[-1] // 2
        found += [*table_HLK.split([rank, rank, 1], -1)[:2], table_HLK[..., -1], control]
    return found


def _sizes(options: Options, q: Tensor, v: Tensor, tables_JHKL: Tensor, parts: int) -> list[int]:
    (sets, H, B, S, d), (T, w) = q.shape, v.shape[2:]
    *before, after = options.mixed
    mixed = sum(there << s for s, there in enumerate(before)) + (after << SIZES.score_sets)
    rank, table = tables_JHKL.shape[2] // 2, tables_JHKL.shape[3]
    layout = options.layout
    rows = min(options.rows, S)
    return [
        sets,
        H,
        B,
        S,
        T,
        d,
        w,
        rank,
        table,
        layout.length,
        rows,
        int(layout.causal),
        int(layout.by_lag),
        mixed,
        parts,
    ]


def _work(q: Tensor, v: Tensor) -> int:
    return q.numel() * v.shape[2]
