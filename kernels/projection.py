"""Projections: several of one input, each scaled by a low-rank factor (FEM, arXiv 2602.07160), `y = x Wᵀ ⊙ (1 + s P)`.

The CPU implementations work through blocks of rows that stay in the cache: `s P` and the gradients of z never exist as
a whole, and nothing is concatenated. They take fp32 and fp64; `modulated_projection` has another one for bf16 autocast.
Elsewhere the formulas run.

Shape letters: B sequences, T tokens, D input channels, C channels of all projections, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from kernels.cpu.bf16.choice import takes_half
from kernels.cpu.bf16.functions import ProjectionBf16
from kernels.cpu.call import multiplies
from kernels.cpu.gates import Linear, Projection
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.nothing import nothing

BLOCK_ELEMENTS = 1 << 17  # of z per block


def modulated_projection(
    x_BTD: Tensor, weight_CD: Tensor, splits: Sequence[int], s_BTR: Tensor | None = None, p_RC: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Several projections of x, each multiplied by its channels of `1 + s P`.

    Args:
        x_BTD: inputs `[B, T, D]`.
        weight_CD: the weights W of all projections `[C, D]`.
        splits: channels of each projection; they sum to C.
        s_BTR: low-rank coefficients `[B, T, R]`; None for plain projections.
        p_RC: the map P from coefficients to channels `[R, C]`; None with `s_BTR`.

    Returns:
        A tensor `[B, T, split]` for each projection, without elements where a split is 0.
    """
    if s_BTR is None or p_RC is None:
        return projections(x_BTD, weight_CD, splits)
    if x_BTD.numel() == 0:
        return nothing((*x_BTD.shape[:-1], len(weight_CD)), x_BTD, weight_CD, s_BTR, p_RC).split(list(splits), dim=-1)
    if (
        _fused(x_BTD, weight_CD, s_BTR)
        and sum(splits) == len(weight_CD)
        and multiplies("BTD CD BTR RC", x_BTD, weight_CD, s_BTR, p_RC)
    ):
        made: tuple[Tensor, ...] = Projection.apply(x_BTD, weight_CD, s_BTR, p_RC, tuple(splits))
        return made
    if _fused(x_BTD, weight_CD, s_BTR):
        outs: tuple[Tensor, ...] = _Projection.apply(x_BTD, weight_CD, s_BTR, p_RC, tuple(splits))
        return outs
    if sum(splits) == len(weight_CD) and takes_half(
        "projection", "c++ in bf16", "BTD CD BTR RC", x_BTD, weight_CD, s_BTR, p_RC
    ):
        rounded: tuple[Tensor, ...] = ProjectionBf16.apply(x_BTD, weight_CD, s_BTR, p_RC, tuple(splits))
        return rounded
    z = linear(x_BTD, weight_CD)
    z = torch.addcmul(z, z, linear(s_BTR.to(z.dtype), p_RC.T).to(z.dtype))
    return z.split(list(splits), dim=-1)


def projections(x_BTD: Tensor, weight_CD: Tensor, splits: Sequence[int]) -> tuple[Tensor, ...]:
    """Several projections of x.

    Args:
        x_BTD: inputs `[…, D]`.
        weight_CD: the weights W of all projections `[C, D]`.
        splits: channels of each projection; they sum to C.

    Returns:
        A tensor `[…, split]` for each projection.
    """
    learns = torch.is_grad_enabled() and x_BTD.requires_grad and weight_CD.requires_grad
    if learns and _fused(x_BTD, weight_CD) and multiplies("*D CD", x_BTD, weight_CD):
        made: tuple[Tensor, ...] = Linear.apply(x_BTD, weight_CD, tuple(splits))
        return made
    return linear(x_BTD, weight_CD).split(list(splits), dim=-1)


def _fused(x: Tensor, *others: Tensor) -> bool:
    one_dtype = x.dtype in (torch.float32, torch.float64) and all(other.dtype == x.dtype for other in others)
    eager_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    # autocast rounds fp32 inputs and leaves fp64 alone
    return one_dtype and eager_cpu and not (x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"))


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, s, p, splits):  # type: ignore[no-untyped-def]
        rows_x, rows_s = x.reshape(-1, x.shape[-1]), s.reshape(-1, s.shape[-1])
        outs, z = [x.new_empty(len(rows_x), split) for split in splits], x.new_empty(len(rows_x), len(weight))
        parts = list(zip(outs, _slices(splits), strict=True))
        for rows, (factor,) in _with_memory(z, 1):
            torch.mm(rows_x[rows], weight.t(), out=z[rows])
            torch.mm(rows_s[rows], p, out=factor)
            for out, part in parts:
                torch.addcmul(z[rows, part], z[rows, part], factor[:, part], out=out[rows])
        ctx.save_for_backward(rows_x, weight, rows_s, p, z)
        ctx.shape = x.shape[:-1]
        return tuple(out.view(*ctx.shape, -1) if out.numel() else x.new_empty(*ctx.shape, 0) for out in outs)

    @staticmethod
    @first_derivative_only
    def backward(ctx, *grads):  # type: ignore[no-untyped-def]
        x, weight, s, p, z = ctx.saved_tensors
        parts = [grad.reshape(len(x), -1) for grad in grads if grad.numel()]
        grad_x, grad_weight, grad_p = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(p)
        grad_s = s.new_empty(s.shape[::-1])
        for rows, (g, c) in _with_memory(z, 2):
            torch.cat([grad[rows] for grad in parts], dim=-1, out=g)
            torch.mul(g, z[rows], out=c)
            torch.mm(p, c.t(), out=grad_s[:, rows])  # this way round: five times faster than c pᵀ
            grad_p.addmm_(s[rows].t(), c)
            torch.addcmul(g, g, torch.mm(s[rows], p, out=c), out=g)
            torch.mm(g, weight, out=grad_x[rows])
            grad_weight.addmm_(g.t(), x[rows])
        return grad_x.view(*ctx.shape, -1), grad_weight, grad_s.t().reshape(*ctx.shape, -1), grad_p, None


def _blocks(rows: int, columns: int) -> list[slice]:
    step = max(64, BLOCK_ELEMENTS // columns)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _slices(splits: Sequence[int]) -> list[slice]:
    ends = [sum(splits[: i + 1]) for i in range(len(splits))]
    return [slice(end - split, end) for end, split in zip(ends, splits, strict=True)]


def _with_memory(x: Tensor, count: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Blocks of rows, each with `count` buffers of its size; the memory is reused."""
    blocks = _blocks(len(x), x.shape[1])
    memory = x.new_empty(count, blocks[0].stop, x.shape[1])
    return ((rows, memory[:, : rows.stop - rows.start].unbind()) for rows in blocks)
