"""Causal sums of linear attention and the delta rule, forward and backward; fp32 or fp64, on a CPU.

By `linear.cpp` and `delta.cpp` with no decay or one per head, by `linear_channels.cpp` and `delta_channels.cpp` with
one per key channel. Arguments as in `kernels.linear.sums`, `kernels.linear.delta` and `kernels.linear.channel_delta`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call
from kernels.cpu.sizes import SIZES
from kernels.numerics.first_derivative import first_derivative_only


class DecayedSums(torch.autograd.Function):
    """(q, k `[B, T, H, k]`, v `[B, T, H, w]`, log-decays `[B, T, H, 1]`, `[B, T, H, k]` or None) → `[B, T, H, w]`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        log_decay = None if log_decay is None else log_decay.contiguous()
        out = torch.empty_like(v)
        call(_name(log_decay), [q, k, v, log_decay, out], _sizes(q, v), _work(q, v))
        ctx.save_for_backward(q, k, v, log_decay)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_decay = ctx.saved_tensors
        grads = [None if x is None else torch.empty_like(x) for x in (q, k, v, log_decay)]
        call(f"{_name(log_decay)}_backward", [q, k, v, log_decay, grad.contiguous(), *grads], _sizes(q, v), _work(q, v))
        return tuple(grads)


class DeltaRule(torch.autograd.Function):
    """(q, k `[B, T, H, k]`, v `[B, T, H, w]`, β `[B, T, H]`, log-decays `[B, T, H]` or None) → `[B, T, H, w]`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None) -> Tensor:
        q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
        log_decay = None if log_decay is None else log_decay.contiguous()
        out = torch.empty_like(v)
        call("delta", [q, k, v, beta, log_decay, out], _sizes(q, v), 2 * _work(q, v))
        ctx.save_for_backward(q, k, v, beta, log_decay)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        grads = [None if x is None else torch.empty_like(x) for x in given]
        q, _, v = given[:3]
        call("delta_backward", [*given, grad.contiguous(), *grads], _sizes(q, v), 2 * _work(q, v))
        return tuple(grads)


class ChannelDeltaRule(torch.autograd.Function):
    """(q, k `[B, T, H, k]`, v `[B, T, H, w]`, β `[B, T, H]`, log-decays and c `[B, T, H, k]`) → `[B, T, H, w]`."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        given = tuple(x.contiguous() for x in given)
        q, v = given[0], given[2]
        out = torch.empty_like(v)
        call("delta_channels", [*given, out], _sizes(q, v), 3 * _work(q, v))
        ctx.save_for_backward(*given)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        given = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in given]
        q, v = given[0], given[2]
        call("delta_channels_backward", [*given, grad.contiguous(), *grads], _sizes(q, v), 3 * _work(q, v))
        return tuple(grads)


def _name(log_decay: Tensor | None) -> str:
    return "linear" if log_decay is None or log_decay.shape[-1] == 1 else "linear_channels"


def _sizes(q: Tensor, v: Tensor) -> list[int]:
    return [*q.shape, v.shape[-1]]


def _work(q: Tensor, v: Tensor) -> int:
    """Each token meets the keys of its chunk; in the delta rule twice, as a key and as a query."""
    return (q.numel() + v.numel()) * SIZES.linear_chunk
