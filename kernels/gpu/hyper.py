"""Lag mixing in blocks of rows (formulas: `kernels.hyper.lag_mixing`): causal, tables by lag, no mask.

A program processes blocks of R rows of one head. The scores of a block are in scratch memory of the program, `[R, T]`
by lag, small enough for the L2 cache and reused for every block: products with keys write and read it at address (row,
t − i), low-rank work with the tables at (row, lag). So every product is one of two plain matrices, and nothing of size
T×T exists.

Backward computes the scores again. Gradients to which many rows add (keys, values, tables) are summed by each program
in its own memory, and then over programs: in a fixed order, so results don't change from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.hyper_backward import backward_kernel
from kernels.gpu.hyper_block import by_key, by_lag, mixed, mixed_scores, narrow_scores, softplus, write_products
from kernels.gpu.shared.launch import Config, blocks, contiguous, dot_precision, launch, padded, target
from kernels.gpu.shared.tiles import store_tile, tile
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.lag_layout import NORM_EPS, Layout

PROGRAMS = 264  # two for each multiprocessor of an H100; with more heads and sequences than that, one for each
WIDEST = 128
ROWS = 16
FORWARD = Config.of(warps=4, stages=1, R=ROWS, N=16)  # found by compiling ahead of time: no spills
BACKWARD = Config.of(warps=8, stages=1, R=ROWS, N=16)
BACKWARD_ON_AMD = Config.of(warps=4, stages=1, R=ROWS, N=16)


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    first,
    second,
    diagonal,
    control,
    out,
    inverse,
    scratch,
    B,
    H,
    T,
    L,
    eps,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    RANK: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    SETS: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    hb = tl.program_id(1).to(tl.int64)
    h, all_hb = hb // B, tl.num_programs(1)
    buffer = scratch + (hb * tl.num_programs(0) + tl.program_id(0)) * SETS * R * T
    first, second, diagonal = first + h * L * RANK, second + h * L * RANK, diagonal + h * L
    control = control + hb * T * RANK
    v = v + hb * T * VALUE
    for block in tl.range(tl.program_id(0), tl.cdiv(T, R), tl.num_programs(0), disable_licm=True):
        start = block * R
        here = start + tl.arange(0, R)
        stop = tl.minimum(start + R, T)
        for s in tl.static_range(SETS):
            of_set = (s * all_hb + hb) * T * KEY
            query = tile(q + of_set, here, KEY, T, KEY, K)
            write_products(buffer + s * R * T, query, k + of_set, here, 0, stop, T, KEY, K, R, N, PRECISION)
        tl.debug_barrier()
        narrow0, narrow1, after = (
            tl.zeros([R, P], tl.float32),
            tl.zeros([R, P], tl.float32),
            tl.zeros([R, P], tl.float32),
        )
        if BEFORE:
            narrow0 = narrow_scores(buffer, 0, first, here, stop, T, L, H, RANK, P, R, N, PRECISION)
            narrow0 *= tile(control, here, RANK, T, RANK, P)
            if SETS == 2:
                narrow1 = narrow_scores(buffer + R * T, 1, first, here, stop, T, L, H, RANK, P, R, N, PRECISION)
                narrow1 *= tile(control + all_hb * T * RANK, here, RANK, T, RANK, P)
        squares = tl.zeros([R], tl.float32)
        last: tl.constexpr = SETS if BEFORE else 0  # the mixing after the activation
        for begin in tl.range(0, stop, N, disable_licm=True):
            lags = begin + tl.arange(0, N)
            at, seen = by_lag(buffer, lags, here, T, R)
            _, gate = mixed_scores(
                buffer, 0, narrow0, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
            )
            squares += tl.sum(gate * gate, 1)
            active = tl.maximum(gate, 0.0)
            if SETS == 2:
                _, scale = mixed_scores(
                    buffer + R * T, 1, narrow1, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
                )
                active *= softplus(scale)
            tl.store(at, active, mask=seen)
            if AFTER:
                after = tl.dot(
                    active, tile(first + last * H * L * RANK, lags, RANK, L, RANK, P), after, input_precision=PRECISION
                )
        tl.debug_barrier()
        if AFTER:
            after *= tile(control + last * all_hb * T * RANK, here, RANK, T, RANK, P)
            for begin in tl.range(0, stop, N, disable_licm=True):
                lags = begin + tl.arange(0, N)
                at, seen = by_lag(buffer, lags, here, T, R)
                active = tl.load(at, mask=seen, other=0.0)
                weights = mixed(
                    active,
                    after,
                    second + last * H * L * RANK,
                    diagonal + last * H * L,
                    lags,
                    seen,
                    L,
                    RANK,
                    P,
                    PRECISION,
                )
                tl.store(at, weights, mask=seen)
            tl.debug_barrier()
        read = tl.zeros([R, D], tl.float32)
        for begin in tl.range(0, stop, N, disable_licm=True):
            keys = begin + tl.arange(0, N)
            at, seen = by_key(buffer, keys, here, T, R)
            read = tl.dot(
                tl.load(at, mask=seen, other=0.0), tile(v, keys, VALUE, T, VALUE, D), read, input_precision=PRECISION
            )
        norm = 1.0 / tl.sqrt(squares + eps)
        store_tile(out + hb * T * VALUE, here, VALUE, T, read * norm[:, None], VALUE, D)
        tl.store(inverse + hb * T + here, norm, mask=here < T)
        tl.debug_barrier()


def refusal(
    q_SHBTd: Tensor,
    k_SHBTd: Tensor,
    v_HBTw: Tensor,
    before: Sequence[Any],
    after: Any | None,
    layout: Layout,
    mask_BT: Tensor | None = None,
) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if v_HBTw.dtype != torch.float32:
        return f"it takes float32, not {str(v_HBTw.dtype).removeprefix('torch.')}"
    causal_by_lag = layout.causal and layout.by_lag
    if not causal_by_lag or mask_BT is not None or q_SHBTd.shape[3] != v_HBTw.shape[2]:
        return "it takes causal calls by lag, without a mask, with all rows"
    if len({mixing is None for mixing in before}) > 1:
        return "it takes a mixing for every score set or for none"
    if max(q_SHBTd.shape[-1], v_HBTw.shape[-1]) > WIDEST:
        return f"it takes heads up to {WIDEST} channels, not {q_SHBTd.shape[-1]} and {v_HBTw.shape[-1]}"
    return None


def lag_mix(
    q_SHBTd: Tensor,
    k_SHBTd: Tensor,
    v_HBTw: Tensor,
    before: Sequence[Any],
    after: Any | None,
    layout: Layout,
    mask_BT: Tensor | None = None,
) -> Tensor:
    """`[H, B, T, w]`, as `kernels.hyper.lag_mixing.lag_mix`; causal, by lag, without a mask."""
    assert layout.causal
    assert layout.by_lag
    assert mask_BT is None
    mixings = [m for m in (*before, after) if m is not None]
    if mixings:
        first, second, diagonal, control = (torch.stack(tables) for tables in zip(*mixings, strict=True))
    else:  # the kernels never read these
        first = second = v_HBTw.new_empty(1, v_HBTw.shape[0], 1, 1)
        diagonal, control = first[..., 0], v_HBTw.new_empty(1, *v_HBTw.shape[:3], 1)
    has = before[0] is not None, after is not None
    out: Tensor = _LagMix.apply(q_SHBTd, k_SHBTd, v_HBTw, first, second, diagonal, control, *has)
    return out


class _LagMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *inputs, before, after = given
        tensors = contiguous(*inputs)
        shared, grid = _common(tensors, before, after)
        v = shared["v"]
        out, inverse = torch.empty_like(v), v.new_empty(v.shape[:3])
        scratch = v.new_empty(grid[0] * grid[1], shared["SETS"], ROWS, v.shape[2])
        launch(forward_kernel, grid, FORWARD, **shared, out=out, inverse=inverse, scratch=scratch, eps=NORM_EPS)
        ctx.save_for_backward(*tensors, out, inverse)
        ctx.has = before, after
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, out, inverse = ctx.saved_tensors
        shared, grid = _common(tensors, *ctx.has)
        q, k, v, first, second, diagonal, control = tensors
        programs, mixings = grid[0] * grid[1], first.shape[0]
        raw = (grad * inverse[..., None]).contiguous()
        pull = (grad * out).sum(-1).mul_(inverse).mul_(inverse)
        scratch = v.new_empty(programs, shared["SETS"] + 2, ROWS, v.shape[2])
        narrows = v.new_empty(programs, mixings, 2, ROWS, shared["P"])
        parts = v.shape[0], v.shape[1], grid[0]
        g_k, g_v = v.new_zeros(*parts, q.shape[0], *k.shape[3:]), v.new_zeros(*parts, *v.shape[2:])
        of_mixing = [x[0, 0].numel() for x in (first, second, diagonal)]
        g_tables = v.new_zeros(*parts, mixings, sum(of_mixing))
        g_q, g_control = torch.empty_like(q), torch.zeros_like(control)
        made = {"g_q": g_q, "g_k": g_k, "g_v": g_v, "g_tables": g_tables, "g_control": g_control}
        config = BACKWARD_ON_AMD if target() == "gfx942" else BACKWARD
        launch(
            backward_kernel,
            grid,
            config,
            **shared,
            **made,
            raw=raw,
            pull=pull,
            scratch=scratch,
            narrows=narrows,
            MIXINGS=mixings,
        )
        split = g_tables.sum((1, 2)).transpose(0, 1).split(of_mixing, dim=-1)
        of_tables = [g.reshape(x.shape) for g, x in zip(split, (first, second, diagonal), strict=True)]
        return g_q, g_k.sum(2).permute(2, 0, 1, 3, 4), g_v.sum(2), *of_tables, g_control, None, None


def _common(tensors: Sequence[Tensor], before: bool, after: bool) -> tuple[dict[str, Any], tuple[int, int]]:
    """The arguments of both kernels, and their grid."""
    q, k, v, first, second, diagonal, control = tensors
    H, B, T, value = v.shape
    shared = {
        "q": q,
        "k": k,
        "v": v,
        "first": first,
        "second": second,
        "diagonal": diagonal,
        "control": control,
        "B": B,
        "H": H,
        "T": T,
        "L": first.shape[2],
        "KEY": q.shape[-1],
        "VALUE": value,
        "RANK": first.shape[-1],
        "K": padded(q.shape[-1]),
        "D": padded(value),
        "P": padded(first.shape[-1]),
        "SETS": q.shape[0],
        "BEFORE": before,
        "AFTER": after,
        "PRECISION": dot_precision(v.dtype),
    }
    return shared, (max(1, min(blocks(T, ROWS), PROGRAMS // (H * B))), H * B)
