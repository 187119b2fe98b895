"""Softmax attention over `attention.cpp`, forward and backward. fp32 or fp64, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.cpu.call import call


def read(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """(out `[B, S, H, w]`, log-sum-exp of each row's scores `[B, H, S]`) of contiguous tensors."""
    B, S, H, _ = q_BSHk.shape
    out, lse = v_BTHw.new_empty(B, S, H, v_BTHw.shape[-1]), v_BTHw.new_empty(B, H, S)
    call("attention", [q_BSHk, k_BTHk, v_BTHw, out, lse], _sizes(q_BSHk, v_BTHw, causal), _work(q_BSHk, v_BTHw), scale)
    return out, lse


def read_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from that of `out`."""
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    call("attention_backward", [q, k, v, out, lse, grad.contiguous(), *grads], _sizes(q, v, causal), _work(q, v), scale)
    return grads


def _sizes(q: Tensor, v: Tensor, causal: bool) -> list[int]:
    B, S, H, k = q.shape
    return [B, S, v.shape[1], H, k, v.shape[-1], int(causal)]


def _work(q: Tensor, v: Tensor) -> int:
    return q.numel() * v.shape[1]


class Attention(torch.autograd.Function):
    """(q, k, v, causal, scale) → out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, lse = read(q, k, v, causal, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.options = causal, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        return (*read_backward(q, k, v, out, lse, grad, *ctx.options), None, None)
