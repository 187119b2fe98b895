"""Autograd functions for `scans.cpp`: the diagonal scan, the channelwise read and the selective scan.

Arguments as in `kernels.scan`, `kernels.channelwise` and `kernels.selective.sums`; fp32 or fp64, on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call
from kernels.cpu.sizes import SIZES
from kernels.numerics.first_derivative import first_derivative_only


class DiagonalScan(torch.autograd.Function):
    """(a, x `[B, T, R]`, reverse) → h."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, reverse: bool) -> Tensor:
        a, x = a.contiguous(), x.contiguous()
        h = torch.empty_like(x)
        call("diagonal", [a, x, h], [*x.shape, int(reverse)], x.numel())
        ctx.save_for_backward(a, h)
        ctx.reverse = reverse
        return h

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, h = ctx.saved_tensors
        to_a, to_x = torch.empty_like(h), torch.empty_like(h)
        call("diagonal_backward", [a, h, grad.contiguous(), to_a, to_x], [*h.shape, int(ctx.reverse)], h.numel())
        return to_a, to_x, None


class ChannelwiseRead(torch.autograd.Function):
    """(k `[B, T, E]`, v `[B, T, c, E]`) → E_p[v]."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.contiguous(), v.contiguous()
        y, newest = torch.empty_like(v), torch.empty_like(k)
        call("channelwise", [k, v, y, newest], [*v.shape], v.numel())
        ctx.save_for_backward(v, y, newest)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        v, y, newest = ctx.saved_tensors
        to_k, to_v = torch.empty_like(newest), torch.empty_like(v)
        call("channelwise_backward", [v, y, newest, grad.contiguous(), to_k, to_v], [*v.shape], v.numel())
        return to_k, to_v


class SelectiveSums(torch.autograd.Function):
    """(Δ `[B, T, E]`, A `[N, E]`, B and C `[B, T, N]`, v `[B, T, c, E]`) → y `[B, T, c, E]`."""

    @staticmethod
    def forward(ctx: Any, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, v: Tensor) -> Tensor:
        inputs = [x.contiguous() for x in (delta, a, b, c, v)]
        v = inputs[-1]
        B, T, copies, _ = v.shape
        y, starts = torch.empty_like(v), v.new_empty(B, -(-T // SIZES.scan_chunk), copies, *a.shape)
        call("selective", [*inputs, y, starts], [*v.shape, len(a)], v.numel() * len(a))
        ctx.save_for_backward(*inputs, starts)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        *inputs, starts = ctx.saved_tensors
        delta, a, b, _, v = inputs
        B, _, _, E = v.shape
        to_delta, to_v = torch.empty_like(delta), torch.empty_like(v)
        to_a = v.new_empty(B, *a.shape)
        to_b, to_c = (v.new_empty(-(-E // SIZES.scan_channels), *b.shape) for _ in range(2))
        outputs = [to_delta, to_a, to_b, to_c, to_v]
        call(
            "selective_backward", [*inputs, starts, grad.contiguous(), *outputs], [*v.shape, len(a)], v.numel() * len(a)
        )
        return to_delta, to_a.sum(0), to_b.sum(0), to_c.sum(0), to_v
