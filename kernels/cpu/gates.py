"""FEM's gates and scaled projections by `gates.cpp` and `projection.cpp`, forward and backward; fp32 or fp64, on a CPU.

Arguments as in `kernels.gates` and `kernels.projection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call, lengths, pointers
from kernels.numerics.first_derivative import first_derivative_only


class GatedMix(torch.autograd.Function):
    """(μ, F, a, b `[…, d]`, eps) → `RMS(softplus(b)) ⊙ [(1 − λ) μ + λ F]`, `λ = sigmoid(a)`."""

    @staticmethod
    def forward(ctx: Any, mu: Tensor, F: Tensor, a: Tensor, b: Tensor, eps: float) -> Tensor:
        inputs = [x.contiguous() for x in (mu, F, a, b)]
        y = torch.empty_like(inputs[0])
        call("gated_mix", [*inputs, y], [y.numel() // y.shape[-1], y.shape[-1]], y.numel(), eps)
        ctx.save_for_backward(*inputs)
        ctx.eps = eps
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in inputs]
        sizes = [grad.numel() // grad.shape[-1], grad.shape[-1]]
        call("gated_mix_backward", [*inputs, grad.contiguous(), *grads], sizes, grad.numel(), ctx.eps)
        return (*grads, None)


class Linear(torch.autograd.Function):
    """(x `[…, D]`, W `[C, D]`, widths) → `x Wᵀ`, `[…, width]` for each width: views of one product. Both gradients are
    computed in one pass, from the gradients of the parts as they are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
        x, w = x.contiguous(), w.contiguous()
        ctx.save_for_backward(x, w)
        ctx.widths = widths
        y = x.new_empty(*x.shape[:-1], len(w))
        call("plain", [x, w, y], [x.numel() // x.shape[-1], x.shape[-1], len(w)], x.numel() * len(w))
        return y.split(list(widths), dim=-1)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, w = ctx.saved_tensors
        given = [grad.contiguous() for grad in grads]
        to_x, to_w = torch.empty_like(x), torch.empty_like(w)
        rows = x.numel() // x.shape[-1]
        tensors = [x, w, to_x, to_w, pointers(given), lengths(ctx.widths)]
        call("plain_backward", tensors, [len(given), rows, x.shape[-1], len(w)], x.numel() * len(w))
        return to_x, to_w, None


class Projection(torch.autograd.Function):
    """(x `[…, D]`, W `[C, D]`, s `[…, R]`, P `[R, C]`, widths) → `x Wᵀ ⊙ (1 + s P)`, `[…, width]` for each width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, s: Tensor, p: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
        x, w, s, p = (t.contiguous() for t in (x, w, s, p))
        rows, C = x.numel() // x.shape[-1], len(w)
        z, outs = x.new_empty(rows, C), [x.new_empty(*x.shape[:-1], width) for width in widths]
        ctx.sizes, ctx.widths = [rows, x.shape[-1], C, s.shape[-1]], widths
        call(
            "projection",
            [x, w, s, p, z, pointers(outs), lengths(widths)],
            [len(widths), *ctx.sizes],
            z.numel() * x.shape[-1],
        )
        ctx.save_for_backward(x, w, s, p, z)
        return tuple(outs)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, s, p, z = ctx.saved_tensors
        given = [grad.contiguous() for grad in grads]
        to_x, to_w, to_s, to_p = map(torch.empty_like, (x, w, s, p))
        tensors = [x, w, s, p, z, to_x, to_w, to_s, to_p, pointers(given), lengths(ctx.widths)]
        call("projection_backward", tensors, [len(given), *ctx.sizes], z.numel() * x.shape[-1])
        return to_x, to_w, to_s, to_p, None
