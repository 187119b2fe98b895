"""Short depthwise convolution by `short_conv.cpp`, forward and backward; fp32 or fp64, on a CPU.

Arguments as in `kernels.short_conv`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call
from kernels.cpu.sizes import SIZES
from kernels.numerics.first_derivative import first_derivative_only


class ShortConv(torch.autograd.Function):
    """(x `[B, T, D]`, taps `[J, D]`, causal, residual) → `[B, T, D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, causal: bool, residual: bool) -> Tensor:
        x, taps = x.contiguous(), taps.contiguous()
        out = torch.empty_like(x)
        ctx.save_for_backward(x, taps)
        ctx.sizes = [*x.shape, len(taps), int(not causal), int(residual)]
        call("short_conv", [x, taps, out], ctx.sizes, x.numel() * len(taps))
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, taps = ctx.saved_tensors
        parts = -(-x.shape[0] * x.shape[1] // SIZES.rows_per_part)
        to_x, to_taps = torch.empty_like(x), x.new_zeros(parts, *taps.shape)
        call("short_conv_backward", [x, taps, grad.contiguous(), to_x, to_taps], ctx.sizes, 2 * x.numel() * len(taps))
        return to_x, to_taps.sum(0), None, None
