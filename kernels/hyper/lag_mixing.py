"""Lag mixing, the attention of HyperMLP and HyperGLU (arXiv 2602.12601): the scores of a row are mixed among its lags,
before and after a ReLU.

For a head and position t, over the visible keys i, indexed by lag (or signed offset) t − i:

    s = q_t·k_i                              h = s (1 + p) + ((s A) ⊙ c_t) Bᵀ
    one score set  (HyperMLP)                a = ReLU(h) / sqrt(Σ h² + eps)
    two score sets (HyperGLU: gate, scale)   a = softplus(h_scale) ⊙ ReLU(h_gate) / sqrt(Σ h_gate² + eps)
    w = a (1 + p') + ((a A') ⊙ c'_t) B'ᵀ     out_t = Σ_i w_i v_i

A mixing has tables A and B `[L, r]`, a diagonal p `[L]` and controls c_t `[r]`. R1 of the paper mixes with first = A,
second = B; R2ᵀ with first = B, second = A. Lags that a row does not see are zero before and after each mixing.

Rows are processed in blocks whose scores are computed, used and discarded, and computed again in backward: O(T·(d + r))
numbers are saved. The norm of a row multiplies its output, since everything after the norm is linear. All-zero rows
give 0.

Shape letters: S score sets, H heads, B sequences, T tokens, L lags, r rank, d and w channels per head of keys, values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.cpu import hyper as compiled
from kernels.cpu.call import multiplies
from kernels.hyper.block import (
    Scores,
    Tables,
    activate,
    activate_adjoint,
    inverse_norm,
    keys_of,
    mix,
    mix_adjoint,
    rows_of,
    scores,
    softplus,
)
from kernels.implementations import attempt, triton_module
from kernels.numerics.eager import eager_only
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.lag_layout import Block, Layout
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

ROWS = 64  # of a block in PyTorch: its scores stay in the cache, and the triangles it wastes stay small


class LagMixing(NamedTuple):
    """One temporal mixing. Tables are indexed by lag (newest first), by signed offset from −(L−1) on, or by position:
    see `Layout`.
    """

    first_HLr: Tensor
    second_HLr: Tensor
    diagonal_HL: Tensor
    control_HBTr: Tensor


class _Options(compiled.Options):
    """The same, with what the blocks of the PyTorch implementation need."""

    def blocks(self, q: Tensor, v: Tensor) -> Iterator[Block]:
        tokens = v.shape[2]
        return self.layout.blocks(tokens, self.rows, v.device, origin=tokens - q.shape[3])

    def tables(self, flat: Sequence[Tensor]) -> list[Tables | None]:
        at = iter(range(0, len(flat), 4))
        return [Tables.read(flat[(i := next(at)) : i + 4], self.layout) if there else None for there in self.mixed]


def lag_mix(
    q_SHBTd: Tensor,
    k_SHBTd: Tensor,
    v_HBTw: Tensor,
    before: Sequence[LagMixing | None],
    after: LagMixing | None,
    layout: Layout,
    mask_BT: Tensor | None = None,
    rows: int | None = None,
) -> Tensor:
    """Attention with mixed scores, computed in fp32, or in fp64 if v is.

    Args:
        q_SHBTd: queries of each score set, 1 or 2 (gate, scale), `[S, H, B, T, d]`. They and the controls may be those
            of the last positions only: as many rows are returned.
        k_SHBTd: keys of each score set `[S, H, B, T, d]`.
        v_HBTw: values `[H, B, T, w]`.
        before: the mixing of each score set, or None.
        after: the mixing after the activation, or None.
        layout: whether rows are causal, how tables are indexed, and the longest sequence L.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.
        rows: rows of a block; None for the number that is fastest.

    Returns:
        `[H, B, T, w]` in fp32 or fp64.

    Raises:
        ValueError: for sequences longer than `layout.length`.
    """
    dtype = torch.float64 if v_HBTw.dtype == torch.float64 else torch.float32
    mixings = [None if m is None else LagMixing(*(t.to(dtype) for t in m)) for m in (*before, after)]
    q, k, v = (t.to(dtype) for t in (q_SHBTd, k_SHBTd, v_HBTw))
    if v.shape[2] > layout.length:
        raise ValueError(f"{v.shape[2]} tokens, the tables are for at most {layout.length}")
    masks = [] if mask_BT is None else [mask_BT]
    present = [m is not None for m in mixings]
    options = [layout.causal, layout.by_lag, layout.length, rows or 0, len(masks), *present]
    tensors = [q, k, v, *masks, *(t for m in mixings if m is not None for t in m)]
    return _mix_opaquely(tensors, [int(option) for option in options])[0]


@eager_only
def _lag_mix(tensors: list[Tensor], options: list[int]) -> Tensor:
    """`lag_mix` with the arguments of an opaque operation."""
    (q, k, v), rest = tensors[:3], iter(tensors[3:])
    causal, by_lag, length, rows, masked, *present = options
    layout, mask_BT = Layout(bool(causal), bool(by_lag), length), next(rest) if masked else None
    mixings = [LagMixing(*islice(rest, 4)) if there else None for there in present]
    given = (q, k, v, mixings[:-1], mixings[-1], layout, mask_BT)
    on_gpu = triton_module("hyper", v, *given)
    if on_gpu is not None:
        return attempt(
            "hyper", lambda: on_gpu.lag_mix(*given), lambda: _blockwise(q, k, v, mixings, layout, mask_BT, rows)
        )
    return _blockwise(q, k, v, mixings, layout, mask_BT, rows)


_mix_opaquely = opaque(
    "lag_mix",
    lambda tensors, options: [_lag_mix(tensors, options)],
    lambda tensors: [tensors[2].new_empty((*tensors[0].shape[1:4], tensors[2].shape[3]))],
    exported_only=True,
)


def _blockwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixings: Sequence[LagMixing | None],
    layout: Layout,
    mask_BT: Tensor | None,
    rows: int,
) -> Tensor:
    """In C++ where it takes the call, otherwise in PyTorch. rows: of a block; 0 for the number that is fastest."""
    if mask_BT is not None:
        gone_BT1 = ~mask_BT[..., None]
        k, v = k.masked_fill(gone_BT1, 0.0), v.masked_fill(gone_BT1, 0.0)
    there = [m for m in mixings if m is not None]
    flat = [t for m in there for t in m]
    mixed = tuple(m is not None for m in mixings)
    shapes = "HBTw sHBSd sHBTd" + " HLr HLr HL HBSr" * len(there)
    if (
        (mask_BT is None or mask_BT.shape == v.shape[1:3])
        and multiplies(shapes, v, q, k, *flat)
        and compiled.computes(there)
    ):
        chosen = compiled.Options(layout, mixed, mask_BT, rows or compiled.ROWS)
        out: Tensor = compiled.LagMix.apply(chosen, q, k, v, *flat)
    else:
        options = _Options(layout, mixed, mask_BT, rows or ROWS)
        out = _LagMix.apply(options, *(t.contiguous() for t in (q, k, v, *flat)))
    return out


class _LagMix(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(ctx: Any, options: _Options, q: Tensor, k: Tensor, v: Tensor, *flat: Tensor) -> Tensor:
        *before, after = options.tables(flat)
        rows = q.shape[1:4]  # [H, B, S]
        out, inverse = v.new_empty(*rows, v.shape[3]), v.new_empty(*rows, 1)
        for block in options.blocks(q, v):
            gate, *scale = (
                scores(block, q[s], k[s], t, options.mask_BT, keep=False).mixed_HBRP for s, t in enumerate(before)
            )
            inverse[:, :, block.here] = inverse_norm(block, gate)
            activate(block, gate, softplus(block.by_lag(scale[0])) if scale else None, out_HBRP=gate)
            if after is not None:
                mix(after, block, gate, gate)
                block.hide(gate)
            read_NRw = torch.bmm(block.by_key(gate), keys_of(v, block))
            torch.mul(read_NRw.view(out[:, :, block.here].shape), inverse[:, :, block.here], out=out[:, :, block.here])
        ctx.options = options
        ctx.save_for_backward(q, k, v, out, inverse, *flat)
        return out

    @staticmethod
    @first_derivative_only
    @full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, inverse, *flat = ctx.saved_tensors
        return (None, *_Backward(ctx.options, q, k, v, flat).sweep(grad.to(v.dtype), out, inverse))


class _Backward:
    """One sweep over the blocks that computes their scores again and gathers the gradients."""

    def __init__(self, options: _Options, q: Tensor, k: Tensor, v: Tensor, flat: Sequence[Tensor]) -> None:
        self.options, self.q, self.k, self.v = options, q, k, v
        self.g_q, self.g_k, self.g_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        self.tables = options.tables(flat)
        self.sums = [None if t is None else t.zeros() for t in self.tables]

    def sweep(self, grad: Tensor, out: Tensor, inverse: Tensor) -> list[Tensor]:
        pull = (grad * out).sum(-1, keepdim=True).mul_(inverse).mul_(inverse)  # of the norm on the scores: −pull·h
        raw = grad * inverse  # the gradient of the read without its norm
        for block in self.options.blocks(self.q, self.v):
            self._block(block, raw, pull[:, :, block.here].flatten(1, 2))
        layout = self.options.layout
        return [self.g_q, self.g_k, self.g_v, *(t for s in self.sums if s is not None for t in s.write(layout))]

    def _block(self, block: Block, raw: Tensor, pull_HM1: Tensor) -> None:
        *before, _ = self.tables
        sets = [scores(block, self.q[s], self.k[s], t, self.options.mask_BT, keep=True) for s, t in enumerate(before)]
        gate, soft = sets[0].mixed_HBRP, softplus(block.by_lag(sets[1].mixed_HBRP)) if len(sets) > 1 else None
        g_HBRP = self._read(block, raw, gate, soft)
        g_scale = activate_adjoint(block, g_HBRP, pull_HM1, gate, soft)
        self._score_set(block, 0, sets[0], g_HBRP)
        if g_scale is not None:
            self._score_set(block, 1, sets[1], g_scale)

    def _read(self, block: Block, raw: Tensor, gate: Tensor, soft: Tensor | None) -> Tensor:
        """The gradient of what `activate` gave; adds to those of v and of the mixing after it."""
        active, raw_NRw = torch.zeros_like(gate), rows_of(raw, block)
        activate(block, gate, soft, out_HBRP=active)
        after, sums = self.tables[-1], self.sums[-1]
        weights, low = active, None
        if after is not None:
            weights = torch.zeros_like(gate)
            low = mix(after, block, active, weights)
            block.hide(weights)
        keys_of(self.g_v, block).baddbmm_(block.by_key(weights).transpose(1, 2), raw_NRw)
        g_HBRP = block.buffer(gate)
        torch.bmm(raw_NRw, keys_of(self.v, block).transpose(1, 2), out=block.by_key(g_HBRP))
        block.hide(g_HBRP)
        if after is not None and sums is not None and low is not None:
            mix_adjoint(after, sums, block, g_HBRP, active, low)
        return g_HBRP

    def _score_set(self, block: Block, s: int, found: Scores, g_HBRP: Tensor) -> None:
        """From the gradient of a set's mixed scores to those of its mixing, queries and keys."""
        tables, sums = self.tables[s], self.sums[s]
        if tables is not None and sums is not None and found.low_HMr is not None:
            mix_adjoint(tables, sums, block, g_HBRP, found.plain_HBRP, found.low_HMr)
            block.hide(g_HBRP)
        by_key_NRn = block.by_key(g_HBRP)
        g_q_NRd = torch.bmm(by_key_NRn, keys_of(self.k[s], block))
        self.g_q[s][:, :, block.here] = g_q_NRd.view(*g_HBRP.shape[:3], -1)
        keys_of(self.g_k[s], block).baddbmm_(by_key_NRn.transpose(1, 2), rows_of(self.q[s], block))
