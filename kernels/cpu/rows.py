"""The root-mean-square norm and the rotation by `rows.cpp`, SwiGLU by `swiglu.cpp`, the short convolution by
`short_conv.cpp`; fp32 or fp64, on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call, in_rows
from kernels.numerics.first_derivative import first_derivative_only


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
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, scale = ctx.saved_tensors
        to_x, to_gain = torch.empty_like(x), torch.empty_like(gain)
        call(
            "rms_norm_backward",
            [x, gain, scale, grad.contiguous(), to_x, to_gain],
            [len(scale), x.shape[-1]],
            x.numel(),
        )
        return to_x, to_gain, None


class Rotate(torch.autograd.Function):
    """(cos, sin `[T, w/2]`, tensors `[B, T, H, w]`) → their rotations by positions, contiguous."""

    @staticmethod
    def forward(ctx: Any, cos: Tensor, sin: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        return tuple(_rotated(x, cos, sin, back=False) for x in xs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is linear: its gradient is a rotation too
            return (None, None, *Rotate.apply(cos, -sin, *grads))
        return (None, None, *(_rotated(grad, cos, sin, back=True) for grad in grads))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    x, pitch = in_rows(x)
    y = x.new_empty(x.shape)
    call("rotate", [x, cos, sin, y], [*x.shape, pitch, int(back)], x.numel())
    return y


class SwiGlu(torch.autograd.Function):
    """(x `[…, D]`, up `[2F, D]`, down `[D, F]`) → `(silu(first half of x·upᵀ) · second half) · downᵀ`, `[…, D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        x, up, down = x.contiguous(), up.contiguous(), down.contiguous()
        sizes = [x.numel() // x.shape[-1], *down.shape]
        z, y = x.new_empty(sizes[0], up.shape[0]), torch.empty_like(x)
        call("swiglu", [x, up, down, z, y], sizes, z.numel() * x.shape[-1])
        ctx.save_for_backward(x, up, down, z)
        ctx.sizes = sizes
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, up, down, z = ctx.saved_tensors
        to_x, to_up, to_down = map(torch.empty_like, (x, up, down))
        given = [x, up, down, z, grad.contiguous(), to_x, to_up, to_down]
        call("swiglu_backward", given, ctx.sizes, z.numel() * x.shape[-1])
        return to_x, to_up, to_down


class FeedForward(torch.autograd.Function):
    """(x, m `[…, D]`, gain `[D]`, up `[2F, D]`, down `[D, F]`, eps) → `h + swiglu(norm(h))`, `h = x + m`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, m: Tensor, gain: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
        x, m, gain, up, down = (t.contiguous() for t in (x, m, gain, up, down))
        ctx.sizes = [x.numel() // x.shape[-1], *down.shape]
        h, y, z = torch.empty_like(x), torch.empty_like(x), x.new_empty(ctx.sizes[0], up.shape[0])
        scale = x.new_empty(ctx.sizes[0])
        call("feed_forward", [x, m, gain, up, down, h, scale, z, y], ctx.sizes, z.numel() * x.shape[-1], eps)
        ctx.save_for_backward(h, gain, scale, up, down, z)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, gain, scale, up, down, z = ctx.saved_tensors
        to_h, to_gain, to_up, to_down = map(torch.empty_like, (h, gain, up, down))
        given = [h, gain, scale, up, down, z, grad.contiguous(), to_h, to_gain, to_up, to_down]
        call("feed_forward_backward", given, ctx.sizes, z.numel() * h.shape[-1])
        return to_h, to_h, to_gain, to_up, to_down, None


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
        to_x, to_taps = torch.empty_like(x), torch.empty_like(taps)
        call("short_conv_backward", [x, taps, grad.contiguous(), to_x, to_taps], ctx.sizes, 2 * x.numel() * len(taps))
        return to_x, to_taps, None, None
