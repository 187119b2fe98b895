"""`L_tj = log Σ_n exp(ℓ_tn) exp(u_nj)` with `Σ_n exp(ℓ_tn) = 1`: exact for any finite u, with no `[t, n, j]` tensor.

ℓ `[..., t, n]`: log-weights, normalised over n, −inf at keys that are not visible; u `[..., n, j]`: finite; L `[..., t,
j]`; fp32 or fp64. The absolute error is a few ulp of max(1, |u|) at worst, and relative where u is small: log-sum-exp
cancels there, and the mean of `expm1(u)` with log1p replaces it wherever the visible u are small enough. Gradients are
the posterior weights `exp(ℓ + u − L) ≤ 1`: never inf, never NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.precision import full_precision

ELEMENTS = 1 << 20  # of the temporary of a block
EXPM1_LIMIT = 80.0
SMALL = 0.5  # of |u| up to which expm1 and log1p are more exact


@full_precision
def log_mean_exp(log_weights: Tensor, u: Tensor) -> Tensor:
    """L `[..., t, j]` from ℓ `[..., t, n]` and u `[..., n, j]`."""
    if log_weights.numel() == 0:  # no rows: the product has the shape and the gradients
        return log_weights @ u
    out: Tensor = _LogMeanExp.apply(log_weights, u)
    return out


def log_mix(f: Tensor, u: Tensor, log_keep: Tensor, log_add: Tensor) -> Tensor:
    """`log( e^{log_keep} e^f + e^{log_add} e^u )` elementwise, for two weights that sum to 1; as exact as above."""
    small = (f.abs() <= SMALL) & (u.abs() <= SMALL)
    zero = f.new_zeros(())
    mean = log_keep.exp() * torch.where(small, f, zero).expm1() + log_add.exp() * torch.where(small, u, zero).expm1()
    return torch.where(small, mean.log1p(), torch.logaddexp(log_keep + f, log_add + u))


class _LogMeanExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_weights: Tensor, u: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        weights, small = log_weights.exp(), u.clamp(max=EXPM1_LIMIT).expm1_()
        mean, size = weights @ small, weights @ small.abs_()
        blocks = []
        for rows in _row_blocks(log_weights, u):
            z = log_weights[..., rows, :, None] + u[..., None, :, :]
            top = z.amax(-2, keepdim=True)
            blocks.append(z.sub_(top).exp_().sum(-2).log_().add_(top.squeeze(-2)))
        out = torch.cat(blocks, dim=-2)
        # what was clamped may count although its weight is tiny, and is missing in size
        small = (size <= SMALL) & (out.abs() <= 1.0) & (u.amax(-2, keepdim=True) <= EXPM1_LIMIT)
        out = torch.where(small, mean.clamp_(min=-0.9).log1p_(), out)
        ctx.save_for_backward(log_weights, u, out)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        log_weights, u, out = ctx.saved_tensors
        grad_u, grad_weights = torch.zeros_like(u), torch.empty_like(log_weights)
        for rows in _row_blocks(log_weights, u):
            z = log_weights[..., rows, :, None] + u[..., None, :, :]
            z = z.sub_(out[..., rows, None, :]).exp_().mul_(grad[..., rows, None, :])
            grad_weights[..., rows, :] = z.sum(-1)
            grad_u += z.sum(-3)
        return grad_weights, grad_u


def _row_blocks(log_weights: Tensor, u: Tensor) -> list[slice]:
    rows = log_weights.shape[-2]
    step = max(1, ELEMENTS // max(1, u.numel()))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
