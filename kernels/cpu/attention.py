"""Softmax attention by `attention.cpp`, forward and backward; fp32 or fp64, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call, in_rows
from kernels.numerics.first_derivative import first_derivative_only


def read(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """(out `[B, S, H, w]`, log-sum-exp of the scores of each row `[B, H, S]`)."""
    B, S, H, _ = q_BSHk.shape
    out, lse = v_BTHw.new_empty(B, S, H, v_BTHw.shape[-1]), v_BTHw.new_empty(B, H, S)
    inputs, sizes = _laid_out(q_BSHk, k_BTHk, v_BTHw, causal)
    call("attention", [*inputs, out, lse], sizes, _work(q_BSHk, v_BTHw), scale)
    return out, lse


def read_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous gradients of q, k and v from that of `out`."""
    grads = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    inputs, sizes = _laid_out(q, k, v, causal)
    call("attention_backward", [*inputs, out, lse, grad.contiguous(), *grads], sizes, _work(q, v), scale)
    return grads


def _laid_out(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[list[Tensor], list[int]]:
    """The inputs and all sizes. Parts of one wide projection are read in place."""
    inputs, pitches = zip(*map(in_rows, (q, k, v)), strict=True)
    B, S, H, k_width = q.shape
    return list(inputs), [B, S, v.shape[1], H, k_width, v.shape[-1], int(causal), *pitches]


def _work(q: Tensor, v: Tensor) -> int:
    return q.numel() * v.shape[1]


class Attention(torch.autograd.Function):
    """(q, k, v, causal, scale) → out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
        out, lse = read(q, k, v, causal, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.options = causal, scale
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        return (*read_backward(q, k, v, out, lse, grad, *ctx.options), None, None)
