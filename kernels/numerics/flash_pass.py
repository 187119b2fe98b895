"""The one pass of the free energy on a CPU by PyTorch's flash operation, where the compiled library is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.numerics.exponentials import SMALL_BETA, log_of
from kernels.numerics.first_derivative import first_derivative_only

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FlashPass(torch.autograd.Function):
    """(q, k, v, β `[H, d]`, causal, scale) → (μ, F), all |βv| in range; queries are as wide as `[v, w]`.

    Exponentials and logarithms run on contiguous memory: on strided rows they are 10 to 40 times slower.
    """

    @staticmethod
    def forward(ctx, q, k, v, beta_Hd, causal, scale):  # type: ignore[no-untyped-def]
        d, small = v.shape[-1], beta_Hd < SMALL_BETA
        w = v * beta_Hd.to(v.dtype)
        w = torch.where(small, w.expm1(), w.exp()) if small.any() else w.exp_()
        values = _side_by_side(v, w, q.shape[-1])
        out, lse = _flash(q.transpose(1, 2), k.transpose(1, 2), values.transpose(1, 2), 0.0, causal, scale=scale)
        read = out.transpose(1, 2)
        mean = read[..., d : 2 * d].contiguous()
        F = log_of(mean, beta_Hd) if small.any() else mean.log()
        F = F.div_(beta_Hd).to(v.dtype)
        ctx.save_for_backward(q, k, v, beta_Hd, w, values, out, lse, mean, F)
        ctx.options = (causal, scale)
        return read[..., :d].contiguous(), F

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad_mu, grad_F):  # type: ignore[no-untyped-def]
        q, k, v, beta_Hd, w, values, out, lse, mean, F = ctx.saved_tensors
        causal, scale = ctx.options
        d, small = v.shape[-1], beta_Hd < SMALL_BETA
        if small.any():  # from expm1 and its mean to exp and its mean
            w, mean = w + small.to(w.dtype), mean + small.to(mean.dtype)
        to_log = grad_F / beta_Hd.to(grad_F.dtype)
        grad_out = _side_by_side(grad_mu, to_log / mean, out.shape[-1])
        inputs = (x.transpose(1, 2) for x in (q, k, values))
        grads = _flash_backward(grad_out.transpose(1, 2), *inputs, out, lse, 0.0, causal, scale=scale)
        grad_q, grad_k, grad_values = (g.transpose(1, 2) for g in grads)
        grad_u = grad_values[..., d : 2 * d] * w
        grad_v = torch.addcmul(grad_values[..., :d], grad_u, beta_Hd.to(grad_u.dtype))
        grad_beta = (grad_u * v).sum((0, 1)) - (to_log * F).sum((0, 1))
        return grad_q, grad_k, grad_v, grad_beta.to(beta_Hd.dtype), None, None


def _side_by_side(a: Tensor, b: Tensor, width: int) -> Tensor:
    """`[a, b]`, and zeros up to the width of the queries."""
    extra = width - 2 * a.shape[-1]
    return torch.cat((a, b, a.new_zeros(*a.shape[:-1], extra)) if extra else (a, b), dim=-1)
