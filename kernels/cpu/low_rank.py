"""FEM's low-rank convolution by `normed_projection.cpp` and `low_rank_scan.cpp`, forward and backward: fp64 inside,
whatever the dtype of its input, on a CPU.

Arguments as in `kernels.low_rank`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call
from kernels.numerics.first_derivative import first_derivative_only


class NormedProjection(torch.autograd.Function):
    """(x `[…, D]`, W `[R, D]` in fp64, eps) → `LayerNorm(x) Wᵀ`, `[…, R]` in fp64."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, eps: float) -> Tensor:
        x, w = x.contiguous(), w.contiguous()
        rows, D, R = x.numel() // x.shape[-1], x.shape[-1], len(w)
        y, mean, inverse = w.new_empty(*x.shape[:-1], R), w.new_empty(rows), w.new_empty(rows)
        call("normed_projection", [x, w, y, mean, inverse], [rows, D, R], x.numel() * R, eps)
        ctx.save_for_backward(x, w, y, mean, inverse)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, w, *rest = ctx.saved_tensors
        to_x, to_w = torch.empty_like(x), torch.empty_like(w)
        sizes = [x.numel() // x.shape[-1], x.shape[-1], len(w)]
        call("normed_projection_backward", [x, w, *rest, grad.contiguous(), to_x, to_w], sizes, x.numel() * len(w))
        return to_x, to_w, None


class LowRankScan(torch.autograd.Function):
    """([a, u, s] `[B, T, 3R]` in fp64, hidden tokens as bytes `[B, T]` or None, channels that scan forward, dtype of
    the result, eps of the norm and of RMS) → `[B, T, R]`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        hidden: Tensor | None,
        forward: int,
        dtype: torch.dtype,
        norm_eps: float,
        rms_eps: float,
    ) -> Tensor:
        given, hidden = given.contiguous(), None if hidden is None else hidden.contiguous()
        B, T, channels = given.shape
        y = given.new_empty(B, T, channels // 3, dtype=dtype)
        ctx.sizes, ctx.eps = [*y.shape, forward], (norm_eps, rms_eps)
        call("low_rank_scan", [y, given, hidden], ctx.sizes, given.numel(), *ctx.eps)
        ctx.save_for_backward(given, hidden)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, hidden = ctx.saved_tensors
        to_given = torch.empty_like(given)
        tensors = [grad.contiguous(), given, hidden, to_given]
        call("low_rank_scan_backward", tensors, ctx.sizes, given.numel(), *ctx.eps)
        return to_given, None, None, None, None, None
