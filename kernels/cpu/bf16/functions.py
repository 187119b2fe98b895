"""SwiGLU and scaled projections under bf16 autocast by `swiglu_bf16.cpp` and `projection_bf16.cpp`, on a CPU.

Inputs are in bf16 or fp32 and rounded once, weights too; both are kept for backward. Results are in bf16. Gradients
are in the fp32 in which they were summed; autograd rounds those of inputs in bf16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.cpu.bf16.choice import in_bf16
from kernels.cpu.call import call, lengths, pointers
from kernels.numerics.first_derivative import first_derivative_only


class SwiGluBf16(torch.autograd.Function):
    """`kernels.cpu.rows.SwiGlu` with products in bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        x, up, down = in_bf16(x), in_bf16(up), in_bf16(down)
        ctx.sizes = [x.numel() // x.shape[-1], *down.shape]
        z, y = x.new_empty(ctx.sizes[0], len(up)), torch.empty_like(x)
        call("swiglu", [x, up, down, z, y], ctx.sizes, z.numel() * x.shape[-1])
        ctx.save_for_backward(x, up, down, z)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, up, down, z = ctx.saved_tensors
        to_x, to_up, to_down = map(_fp32_like, (x, up, down))
        given = [x, up, down, z, grad.contiguous(), to_x, to_up, to_down]
        call("swiglu_backward", given, ctx.sizes, z.numel() * x.shape[-1])
        return to_x, to_up, to_down


class ProjectionBf16(torch.autograd.Function):
    """`kernels.cpu.gates.Projection` with the products of x and W in bf16, those of s and P in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, s: Tensor, p: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
        x, w, s, p = in_bf16(x), in_bf16(w), s.float().contiguous(), p.float().contiguous()
        rows, C = x.numel() // x.shape[-1], len(w)
        z, outs = x.new_empty(rows, C), [x.new_empty(*x.shape[:-1], width) for width in widths]
        ctx.sizes, ctx.widths = [rows, x.shape[-1], C, s.shape[-1]], widths
        sizes = [len(widths), *ctx.sizes]
        call("projection", [x, w, s, p, z, pointers(outs), lengths(widths)], sizes, z.numel() * x.shape[-1])
        ctx.save_for_backward(x, w, s, p, z)
        return tuple(outs)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, s, p, z = ctx.saved_tensors
        given = [grad.contiguous() for grad in grads]
        to_x, to_w, to_s, to_p = map(_fp32_like, (x, w, s, p))
        tensors = [x, w, s, p, z, to_x, to_w, to_s, to_p, pointers(given), lengths(ctx.widths)]
        call("projection_backward", tensors, [len(given), *ctx.sizes], z.numel() * x.shape[-1])
        return to_x, to_w, to_s, to_p, None


def _fp32_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)
