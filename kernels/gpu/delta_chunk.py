"""Parts of the delta rule that are computed for all chunks of C tokens in parallel: weights between tokens, an inverse.

Each kernel computes few matrix products and writes its result to memory. With more in one kernel, a thread runs out of
registers: an fp32 product is three tf32 products of split operands.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.shared.tiles import column, row, store_window, window

AS_IT_IS, SINCE, RATE = 0, 1, 2  # what rows are scaled by before a product: 1, e^G, β
BY_SINCE, BY_RATE = tl.constexpr(SINCE), tl.constexpr(RATE)


@triton.jit
def summed(log_decay, of_tokens, here, heads, tokens, C: tl.constexpr, DECAYS: tl.constexpr):
    """G of these tokens from the first of them, and its last entry, in fp64; zeros without decay."""
    if DECAYS:
        steps = tl.load(log_decay + of_tokens + here * heads, mask=here < tokens, other=0.0).to(tl.float64)
        total = tl.cumsum(steps, 0)
        return total, tl.sum(tl.where(tl.arange(0, C) == C - 1, total, 0.0), 0)
    return tl.zeros([C], tl.float64), tl.sum(tl.zeros([C], tl.float64), 0)


@triton.jit
def decayed(exponent):
    """e^exponent in fp32, of exponents in fp64 that are at most 0, but for rounding and where the result is masked."""
    return tl.exp(tl.minimum(exponent, 0.0).to(tl.float32))


@triton.jit
def rates_of(beta, of_tokens, here, heads, tokens):
    """β `[C]` in fp32."""
    return tl.load(beta + of_tokens + here * heads, mask=here < tokens, other=0.0).to(tl.float32)


@triton.jit
def scaled(
    x, beta, log_decay, of_tokens, here, heads, tokens, C: tl.constexpr, DECAYS: tl.constexpr, SCALE: tl.constexpr
):
    """The rows of x `[C, …]` times 1, e^G or β."""
    if SCALE == BY_SINCE:
        total, _ = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
        x *= decayed(total)[:, None]
    if SCALE == BY_RATE:
        x *= rates_of(beta, of_tokens, here, heads, tokens)[:, None]
    return x


@triton.jit
def weights_kernel(
    left,
    right,
    beta,
    log_decay,
    out,
    tokens,
    heads,
    width,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`(left_t·right_i) D_ti` `[B, T, H, C]` of rows `[B, T, H, width]`, those of right scaled; zero at i > t."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, order = tl.program_id(0) * C + tl.arange(0, C), tl.arange(0, C)
    pairs = tl.zeros([C, C], tl.float32)
    for begin in tl.range(0, width, W, disable_licm=True):
        mine = begin + tl.arange(0, W)
        one = window(left + of_tokens * width, here, heads * width, tokens, mine, width)
        other = window(right + of_tokens * width, here, heads * width, tokens, mine, width)
        other = scaled(other, beta, log_decay, of_tokens, here, heads, tokens, C, DECAYS, SCALE)
        pairs = tl.dot(one, tl.trans(other), pairs, input_precision=PRECISION)
    total, _ = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
    pairs *= decayed(total[:, None] - total[None, :])
    pairs = tl.where(order[:, None] >= order[None, :], pairs, 0.0)
    store_window(out + of_tokens * C, here, heads * C, tokens, order, C, pairs)


@triton.jit
def product_kernel(
    matrix,
    x,
    beta,
    log_decay,
    out,
    tokens,
    heads,
    width,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    SCALE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A matrix `[B, T, H, C]`, or its transpose, times the scaled rows of x `[B, T, H, width]`; W columns of it."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, mine = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(2) * W + tl.arange(0, W)
    side = window(x + of_tokens * width, here, heads * width, tokens, mine, width)
    side = scaled(side, beta, log_decay, of_tokens, here, heads, tokens, C, DECAYS, SCALE)
    of_chunk = window(matrix + of_tokens * C, here, heads * C, tokens, tl.arange(0, C), C)
    if TRANSPOSED:
        of_chunk = tl.trans(of_chunk)
    result = tl.dot(of_chunk, side, input_precision=PRECISION)
    store_window(out + of_tokens * width, here, heads * width, tokens, mine, width, result)


@triton.jit
def diagonal_block(weights, beta, of_tokens, here, heads, tokens, first, C: tl.constexpr, SIZE: tl.constexpr):
    """`(I + Y diag β)^{-1}` of SIZE tokens from the chunk's token `first` on, by forward substitution."""
    order = tl.arange(0, SIZE)
    below = window(weights + of_tokens * C, here, heads * C, tokens, first + order, C)
    below *= rates_of(beta, of_tokens, here, heads, tokens)[None, :]
    below = tl.where(order[:, None] > order[None, :], below, 0.0)
    inverse = tl.where(order[:, None] == order[None, :], 1.0, 0.0)
    for n in range(SIZE):
        inverse -= column(below, n, SIZE)[:, None] * row(inverse, n, SIZE)[None, :]
    return inverse


@triton.jit
def inverse_kernel(
    weights, beta, log_decay, inverse, tokens, heads, C: tl.constexpr, DECAYS: tl.constexpr, PRECISION: tl.constexpr
):
    """`A = (I + Y diag β)^{-1}` `[B, T, H, C]`, Y the weights between keys: two diagonal blocks and the one below."""
    HALF: tl.constexpr = C // 2
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    columns = tl.arange(0, HALF)
    top = tl.program_id(0) * C + columns
    low = top + HALF
    first = diagonal_block(weights, beta, of_tokens, top, heads, tokens, 0, C, HALF)
    last = diagonal_block(weights, beta, of_tokens, low, heads, tokens, HALF, C, HALF)
    across = window(weights + of_tokens * C, low, heads * C, tokens, columns, C)
    across *= rates_of(beta, of_tokens, top, heads, tokens)[None, :]
    across = tl.dot(last, tl.dot(across, first, input_precision=PRECISION), input_precision=PRECISION)
    out = inverse + of_tokens * C
    store_window(out, top, heads * C, tokens, columns, C, first)
    store_window(out, top, heads * C, tokens, columns + HALF, C, tl.zeros([HALF, HALF], tl.float32))
    store_window(out, low, heads * C, tokens, columns, C, -across)
    store_window(out, low, heads * C, tokens, columns + HALF, C, last)
