"""Softmax attention by `attention.cpp`, forward and backward; fp32 or fp64, on a CPU.

A turn is the cosines and sines `[T, k/2]` of the angles by which queries and keys are rotated, or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import call, in_rows
from kernels.numerics.first_derivative import first_derivative_only


@dataclass(frozen=True)
class Options:
    """Which keys a row sees, and the factor of the scores.

    causal: keys up to the row.
    scale: of the scores.
    window: keys less than so many tokens away; 0 for all.
    """

    causal: bool
    scale: float
    window: int = 0


Turn = tuple[Tensor, Tensor] | None


def read(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_f_BTH: Tensor | None, options: Options, turn: Turn = None
) -> tuple[Tensor, Tensor]:
    """(out `[B, S, H, w]`, log-sum-exp of the scores of each row `[B, H, S]`).

    The scores of row t and key i lose |Σ log f| over the gates between them; gates need S = T, as a turn does.
    """
    B, S, H, _ = q_BSHk.shape
    out, lse = v_BTHw.new_empty(B, S, H, v_BTHw.shape[-1]), v_BTHw.new_empty(B, H, S)
    inputs, sizes = _laid_out(q_BSHk, k_BTHk, v_BTHw, options)
    tensors = [*inputs, _whole(log_f_BTH), *_tables(turn), out, lse]
    call("attention", tensors, sizes, _work(q_BSHk, v_BTHw), options.scale)
    return out, lse


def read_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_f: Tensor | None,
    out: Tensor,
    lse: Tensor,
    grad: Tensor,
    options: Options,
    turn: Turn = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Contiguous gradients of q, k, v and log f from that of `out`."""
    grads = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    to_log_f = None if log_f is None else log_f.new_empty(log_f.shape)
    inputs, sizes = _laid_out(q, k, v, options)
    tensors = [*inputs, _whole(log_f), *_tables(turn), out, lse, grad.contiguous(), *grads, to_log_f]
    call("attention_backward", tensors, sizes, _work(q, v), options.scale)
    return *grads, to_log_f


def _tables(turn: Turn) -> list[Tensor | None]:
    return [None, None] if turn is None else [x.contiguous() for x in turn]


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _laid_out(q: Tensor, k: Tensor, v: Tensor, options: Options) -> tuple[list[Tensor], list[int]]:
    """The inputs and all sizes. Parts of one wide projection are read in place."""
    inputs, pitches = zip(*map(in_rows, (q, k, v)), strict=True)
    B, S, H, k_width = q.shape
    sizes = [B, S, v.shape[1], H, k_width, v.shape[-1], int(options.causal), options.window]
    return list(inputs), [*sizes, *pitches]


def _work(q: Tensor, v: Tensor) -> int:
    return q.numel() * v.shape[1]


class Attention(torch.autograd.Function):
    """(q, k, v, log f or None, options, turn) → out."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_f: Tensor | None, options: Options, turn: Turn = None
    ) -> Tensor:
        out, lse = read(q, k, v, log_f, options, turn)
        ctx.save_for_backward(q, k, v, log_f, out, lse, *(turn or (None, None)))
        ctx.options = options
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_f, out, lse, cosine, sine = ctx.saved_tensors
        turn = None if cosine is None else (cosine, sine)
        return (*read_backward(q, k, v, log_f, out, lse, grad, ctx.options, turn), None, None)
