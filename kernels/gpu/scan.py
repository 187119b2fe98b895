"""The diagonal scan `h_t = a_t h_{t−1} + x_t` (arguments: `kernels.scan`): chunks of tokens by an associative scan.

A program processes the chunks in order for some channels of one sequence. Backward is the same scan from the other end:
with λ the gradient of h, `λ_t = g_t + a_{t+1} λ_{t+1}`, `∂x = λ`, `∂a_t = λ_t h_{t−1}`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.shared.launch import Config, blocks, contiguous, launch
from kernels.gpu.shared.tiles import row
from kernels.numerics.first_derivative import first_derivative_only

CONFIG = Config.of(warps=4, stages=1, C=64, R=16)


@triton.jit
def merged(a, x, later_a, later_x):
    """Two steps as one."""
    return a * later_a, later_a * x + later_x


@triton.jit
def forward_kernel(a, x, h, tokens, channels, REVERSE: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    mine, b = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    carry = tl.zeros([R], h.dtype.element_ty)
    for begin in range(0, tokens, C):
        step = begin + tl.arange(0, C)
        token = tokens - 1 - step if REVERSE else step
        inside = (step < tokens)[:, None] & (mine < channels)[None, :]
        at = (b * tokens + token)[:, None] * channels + mine[None, :]
        decay, new = tl.load(a + at, mask=inside, other=1.0), tl.load(x + at, mask=inside, other=0.0)
        kept, added = tl.associative_scan((decay, new), 0, merged)
        state = kept * carry[None, :] + added
        tl.store(h + at, state, mask=inside)
        carry = row(state, C - 1, C)


@triton.jit
def backward_kernel(a, h, g, g_a, g_x, tokens, channels, REVERSE: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    """`step` counts from the end of the scan."""
    mine, b = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    carry = tl.zeros([R], h.dtype.element_ty)
    direction = -1 if REVERSE else 1
    for begin in range(0, tokens, C):
        step = begin + tl.arange(0, C)
        token = step if REVERSE else tokens - 1 - step
        mine_1R = (mine < channels)[None, :]
        inside = (step < tokens)[:, None] & mine_1R
        at = (b * tokens + token)[:, None] * channels + mine[None, :]
        has_next = (step > 0)[:, None] & inside
        has_previous = (step < tokens - 1)[:, None] & mine_1R
        # beyond the sequence: a step that changes nothing
        decay = tl.load(a + at + direction * channels, mask=has_next, other=0.0)
        decay = tl.where((step < tokens)[:, None], decay, 1.0)
        kept, added = tl.associative_scan((decay, tl.load(g + at, mask=inside, other=0.0)), 0, merged)
        adjoint = kept * carry[None, :] + added
        tl.store(g_x + at, adjoint, mask=inside)
        tl.store(g_a + at, adjoint * tl.load(h + at - direction * channels, mask=has_previous, other=0.0), mask=inside)
        carry = row(adjoint, C - 1, C)


def refusal(a_BTR: Tensor, x_BTR: Tensor, reverse: bool = False) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if x_BTR.dtype not in (torch.float32, torch.float64):
        return f"it takes float32 and float64, not {str(x_BTR.dtype).removeprefix('torch.')}"
    return None


def diagonal_scan(a_BTR: Tensor, x_BTR: Tensor, reverse: bool = False) -> Tensor:
    """h, as `kernels.scan.diagonal_scan`."""
    h: Tensor = _Scan.apply(a_BTR, x_BTR, reverse)
    return h


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, reverse: bool) -> Tensor:
        a, x = contiguous(a, x)
        h = torch.empty_like(x)
        launch(forward_kernel, _grid(x), CONFIG, a=a, x=x, h=h, tokens=x.shape[1], channels=x.shape[2], REVERSE=reverse)
        ctx.save_for_backward(a, h)
        ctx.reverse = reverse
        return h

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, h = ctx.saved_tensors
        g_a, g_x = torch.empty_like(h), torch.empty_like(h)
        sizes = {"tokens": h.shape[1], "channels": h.shape[2], "REVERSE": ctx.reverse}
        launch(backward_kernel, _grid(h), CONFIG, a=a, h=h, g=grad.contiguous(), g_a=g_a, g_x=g_x, **sizes)
        return g_a, g_x, None


def _grid(x_BTR: Tensor) -> tuple[int, int]:
    return blocks(x_BTR.shape[2], CONFIG["R"]), x_BTR.shape[0]
