"""The selective scan of a diagonal state space, several inputs in one pass (arguments: `kernels.selective.sums`).

A program holds the `[c, N, E]` state of some channels in registers and processes the tokens in order. Forward saves the
state at the start of each chunk; backward writes the states of a chunk to scratch memory, reused for every chunk, and
reads them from the end.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.shared.launch import Config, blocks, contiguous, launch
from kernels.numerics.first_derivative import first_derivative_only

CHUNK = 32
CONFIG = Config.of(warps=4, stages=1, R=32, CHUNK=CHUNK)
WIDEST = 64  # most states times inputs per channel


@triton.jit
def forward_kernel(
    delta,
    a,
    b,
    c,
    v,
    y,
    starts,
    tokens,
    channels,
    chunks,
    STATES: tl.constexpr,
    COPIES: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """STATES and COPIES are padded to N and S."""
    mine, batch = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    n, s = tl.arange(0, N), tl.arange(0, S)
    here = mine < channels
    rates = tl.load(a + n[:, None] * channels + mine[None, :], mask=(n < STATES)[:, None] & here[None, :], other=0.0)
    inputs = (s < COPIES)[:, None] & here[None, :]
    places = (s[:, None, None] * STATES + n[None, :, None]) * channels + mine[None, None, :]
    whole = (s < COPIES)[:, None, None] & (n < STATES)[None, :, None] & here[None, None, :]
    state = tl.zeros([S, N, R], tl.float32)
    for t in range(tokens):
        if t % CHUNK == 0:
            tl.store(starts + (batch * chunks + t // CHUNK) * (COPIES * STATES) * channels + places, state, mask=whole)
        at = batch * tokens + t
        step = tl.load(delta + at * channels + mine, mask=here, other=0.0)
        into = tl.load(b + at * STATES + n, mask=n < STATES, other=0.0)
        out_of = tl.load(c + at * STATES + n, mask=n < STATES, other=0.0)
        at_inputs = at * COPIES * channels + s[:, None] * channels + mine[None, :]
        value = tl.load(v + at_inputs, mask=inputs, other=0.0)
        decay = tl.exp(step[None, :] * rates)
        state = decay[None, :, :] * state + (step[None, :] * value)[:, None, :] * into[None, :, None]
        tl.store(y + at_inputs, tl.sum(state * out_of[None, :, None], 1), mask=inputs)


@triton.jit
def backward_kernel(
    delta,
    a,
    b,
    c,
    v,
    g,
    starts,
    scratch,
    g_delta,
    g_a,
    g_b,
    g_c,
    g_v,
    tokens,
    channels,
    chunks,
    STATES: tl.constexpr,
    COPIES: tl.constexpr,
    N: tl.constexpr,
    S: tl.constexpr,
    R: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """g_a `[B, N, E]`; g_b and g_c `[blocks of channels, B, T, N]`; scratch `[B, CHUNK + 1, c, N, E]`."""
    mine, batch = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    n, s = tl.arange(0, N), tl.arange(0, S)
    here = mine < channels
    of_state = (n < STATES)[:, None] & here[None, :]
    rates = tl.load(a + n[:, None] * channels + mine[None, :], mask=of_state, other=0.0)
    inputs = (s < COPIES)[:, None] & here[None, :]
    size = (COPIES * STATES) * channels
    places = (s[:, None, None] * STATES + n[None, :, None]) * channels + mine[None, None, :]
    whole = (s < COPIES)[:, None, None] & (n < STATES)[None, :, None] & here[None, None, :]
    buffer = scratch + batch * (CHUNK + 1) * size + places
    partial = (tl.program_id(0) * tl.num_programs(1) + batch) * tokens
    carry = tl.zeros([S, N, R], tl.float32)  # decay_{t+1} λ_{t+1}
    to_rates = tl.zeros([N, R], tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i
        length = tl.minimum(tokens - chunk * CHUNK, CHUNK)
        state = tl.load(starts + (batch * chunks + chunk) * size + places, mask=whole, other=0.0)
        tl.store(buffer, state, mask=whole)
        for j in range(length):
            at = batch * tokens + chunk * CHUNK + j
            step = tl.load(delta + at * channels + mine, mask=here, other=0.0)
            into = tl.load(b + at * STATES + n, mask=n < STATES, other=0.0)
            value = tl.load(v + at * COPIES * channels + s[:, None] * channels + mine[None, :], mask=inputs, other=0.0)
            decay = tl.exp(step[None, :] * rates)
            state = decay[None, :, :] * state + (step[None, :] * value)[:, None, :] * into[None, :, None]
            tl.store(buffer + (j + 1) * size, state, mask=whole)
        tl.debug_barrier()
        for back in range(length):
            j = length - 1 - back
            at = batch * tokens + chunk * CHUNK + j
            step = tl.load(delta + at * channels + mine, mask=here, other=0.0)
            into = tl.load(b + at * STATES + n, mask=n < STATES, other=0.0)
            out_of = tl.load(c + at * STATES + n, mask=n < STATES, other=0.0)
            at_inputs = at * COPIES * channels + s[:, None] * channels + mine[None, :]
            value, grad = tl.load(v + at_inputs, mask=inputs, other=0.0), tl.load(g + at_inputs, mask=inputs, other=0.0)
            before, after = (
                tl.load(buffer + j * size, mask=whole, other=0.0),
                tl.load(buffer + (j + 1) * size, mask=whole, other=0.0),
            )
            decay = tl.exp(step[None, :] * rates)
            adjoint = carry + out_of[None, :, None] * grad[:, None, :]
            carry = adjoint * decay[None, :, :]
            tl.store(
                g_c + (partial + chunk * CHUNK + j) * STATES + n,
                tl.sum(tl.sum(after * grad[:, None, :], 2), 0),
                mask=n < STATES,
            )
            entered = step[None, :] * value
            to_b = tl.sum(tl.sum(adjoint * entered[:, None, :], 2), 0)
            tl.store(g_b + (partial + chunk * CHUNK + j) * STATES + n, to_b, mask=n < STATES)
            to_entered = tl.sum(adjoint * into[None, :, None], 1)
            tl.store(g_v + at_inputs, to_entered * step[None, :], mask=inputs)
            to_exponent = tl.sum(carry * before, 0)
            to_rates += to_exponent * step[None, :]
            to_step = tl.sum(to_exponent * rates, 0) + tl.sum(to_entered * value, 0)
            tl.store(g_delta + at * channels + mine, to_step, mask=here)
        tl.debug_barrier()
    tl.store(g_a + (batch * STATES + n[:, None]) * channels + mine[None, :], to_rates, mask=of_state)


def refusal(delta_BTE: Tensor, a_NE: Tensor, b_BTN: Tensor, c_BTN: Tensor, v_BTcE: Tensor) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if v_BTcE.dtype != torch.float32:
        return f"it takes float32, not {str(v_BTcE.dtype).removeprefix('torch.')}"
    states, copies = a_NE.shape[0], v_BTcE.shape[2]
    if _power(states) * _power(copies) > WIDEST:
        return f"it takes up to {WIDEST} states per channel for all inputs together, not {states} for each of {copies}"
    return None


def selective_sums(delta_BTE: Tensor, a_NE: Tensor, b_BTN: Tensor, c_BTN: Tensor, v_BTcE: Tensor) -> Tensor:
    """y, as `kernels.selective.sums.selective_sums`."""
    y: Tensor = _SelectiveSums.apply(delta_BTE, a_NE, b_BTN, c_BTN, v_BTcE)
    return y


class _SelectiveSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, v: Tensor) -> Tensor:
        delta, a, b, c, v = contiguous(delta, a, b, c, v)
        sizes, y = _sizes(a, v), torch.empty_like(v)
        starts = v.new_empty(v.shape[0], sizes["chunks"], v.shape[2], *a.shape)
        launch(forward_kernel, _grid(v), CONFIG, delta=delta, a=a, b=b, c=c, v=v, y=y, starts=starts, **sizes)
        ctx.save_for_backward(delta, a, b, c, v, starts)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        delta, a, b, c, v, starts = ctx.saved_tensors
        g_delta, g_v, scratch = (
            torch.empty_like(delta),
            torch.empty_like(v),
            v.new_empty(v.shape[0], CHUNK + 1, v.shape[2], *a.shape),
        )
        g_a, partial = v.new_empty(v.shape[0], *a.shape), (_grid(v)[0], *b.shape)
        g_b, g_c = v.new_empty(partial), v.new_empty(partial)
        given = {
            "delta": delta,
            "a": a,
            "b": b,
            "c": c,
            "v": v,
            "g": grad.contiguous(),
            "starts": starts,
            "scratch": scratch,
        }
        made = {"g_delta": g_delta, "g_a": g_a, "g_b": g_b, "g_c": g_c, "g_v": g_v}
        launch(backward_kernel, _grid(v), CONFIG, **given, **made, **_sizes(a, v))
        return g_delta, g_a.sum(0), g_b.sum(0), g_c.sum(0), g_v


def _sizes(a: Tensor, v: Tensor) -> dict[str, int]:
    return {
        "tokens": v.shape[1],
        "channels": v.shape[3],
        "chunks": blocks(v.shape[1], CHUNK),
        "STATES": a.shape[0],
        "COPIES": v.shape[2],
        "N": _power(a.shape[0]),
        "S": _power(v.shape[2]),
    }


def _grid(v: Tensor) -> tuple[int, int]:
    return blocks(v.shape[3], CONFIG["R"]), v.shape[0]


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()
