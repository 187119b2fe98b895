"""Autograd functions over `rows.cpp`: the root-mean-square norm and the gated SiLU, forward and backward. fp32 or fp64, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.cpu.call import call

PIECE = 64  # rows of one part of a sum over rows, as in rows.cpp


class RmsNorm(torch.autograd.Function):
    """(x `[…, D]`, gain `[D]`, eps) → `x / sqrt(mean(x²) + eps) · gain`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        rows, dim = x.numel() // x.shape[-1], x.shape[-1]
        y, scale = torch.empty_like(x), x.new_empty(rows)
        call("rms_norm", [x, gain, y, scale], [rows, dim], x.numel(), eps)
        ctx.save_for_backward(x, gain, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, scale = ctx.saved_tensors
        to_x, to_gain = torch.empty_like(x), x.new_empty(-(-len(scale) // PIECE), x.shape[-1])
        call("rms_norm_backward", [x, gain, scale, grad.contiguous(), to_x, to_gain], [len(scale), x.shape[-1]], x.numel())
        return to_x, to_gain.sum(0), None


class GatedSilu(torch.autograd.Function):
    """`[…, 2F]` → silu(first half) · second half, `[…, F]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1] // 2
        y = x.new_empty(*x.shape[:-1], width)
        call("gated_silu", [x, y], [y.numel() // max(width, 1), width], x.numel())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        to_x, width = torch.empty_like(x), grad.shape[-1]
        call("gated_silu_backward", [x, grad.contiguous(), to_x], [grad.numel() // max(width, 1), width], x.numel())
        return to_x
