"""The one-pass free-energy read by `attention.cpp` and `free_energy.cpp`, forward and backward; fp32 or fp64, on a CPU.

Arguments and range as for the one pass of `kernels.free_energy`, but values `[v, exp(βv)]` may be wider than queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu import attention
from kernels.cpu.call import call
from kernels.cpu.sizes import SIZES
from kernels.numerics.first_derivative import first_derivative_only


class FreeEnergy(torch.autograd.Function):
    """(q, k, v, β `[H, d]`, log f or None, options, limits) → (μ, F).

    log f and options: as in `kernels.cpu.attention`.

    limits: channels with β below the first carry expm1(βv) and end in log1p; |βv| is clamped at the second, in those
    channels at the third.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,
        log_f: Tensor | None,
        options: attention.Options,
        limits: tuple[float, float, float],
    ) -> tuple[Tensor, Tensor]:
        q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
        values = v.new_empty(*v.shape[:3], 2 * v.shape[-1])
        call("carried", [v, beta, values], _sizes(v), v.numel(), *limits)
        read, lse = attention.read(q, k, values, log_f, options)
        mu, F = (v.new_empty(*read.shape[:3], v.shape[-1]) for _ in range(2))
        call("free_energy", [read, beta, mu, F], _sizes(F), F.numel(), limits[0])
        ctx.save_for_backward(q, k, values, beta, log_f, read, lse, F)
        ctx.options = options, limits[0]
        return mu, F

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad_mu: Tensor, grad_F: Tensor) -> tuple[Tensor | None, ...]:
        q, k, values, beta, log_f, read, lse, F = ctx.saved_tensors
        options, bound = ctx.options
        to_read, through_F = torch.empty_like(read), _parts(F)
        given = [grad_mu.contiguous(), grad_F.contiguous(), read, F, beta, to_read, through_F]
        call("free_energy_backward", given, _sizes(F), F.numel(), bound)
        to_q, to_k, to_values, to_log_f = attention.read_backward(q, k, values, log_f, read, lse, to_read, options)
        to_v = values.new_empty(*values.shape[:3], values.shape[-1] // 2)
        through_w = _parts(to_v)
        call("carried_backward", [to_values, values, beta, to_v, through_w], _sizes(to_v), to_v.numel(), bound)
        to_beta_Hd = through_w.sum(0, dtype=torch.float64) + through_F.sum(0, dtype=torch.float64)
        to_beta = to_beta_Hd.view_as(beta).to(beta.dtype)
        return to_q, to_k, to_v, to_beta, to_log_f, None, None


def _sizes(x_BTHd: Tensor) -> list[int]:
    B, T, H, d = x_BTHd.shape
    return [B * T, H * d, d]


def _parts(x_BTHd: Tensor) -> Tensor:
    B, T, H, d = x_BTHd.shape
    return x_BTHd.new_empty(-(-B * T // SIZES.rows_per_part), H * d)
