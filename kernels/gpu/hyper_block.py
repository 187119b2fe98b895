"""Operations of lag mixing on one block of rows: scores in scratch memory by key and by lag, and their mixing."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.shared.elementary import log1p
from kernels.gpu.shared.tiles import store_tile, tile


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def add_tile(base, rows, stride, count, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Adds to memory that only this program uses."""
    store_tile(base, rows, stride, count, tile(base, rows, stride, count, WIDTH, PADDED) + values, WIDTH, PADDED)


@triton.jit
def by_lag(buffer, lags, here, T, R: tl.constexpr):
    """Addresses of the scores of a block at these lags, and which of them belong to a visible key."""
    seen = (lags[None, :] <= here[:, None]) & (here < T)[:, None]
    return buffer + tl.arange(0, R)[:, None] * T + lags[None, :], seen


@triton.jit
def by_key(buffer, keys, here, T, R: tl.constexpr):
    """The same for these keys."""
    seen = (keys[None, :] <= here[:, None]) & (here < T)[:, None]
    return buffer + tl.arange(0, R)[:, None] * T + (here[:, None] - keys[None, :]), seen


@triton.jit
def write_products(
    buffer,
    left,
    right,
    here,
    begin,
    stop,
    T,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`left · right_i` of the visible keys; right is `[T, WIDTH]`."""
    for i in tl.range(begin, stop, N, disable_licm=True):
        keys = i + tl.arange(0, N)
        at, seen = by_key(buffer, keys, here, T, R)
        product = tl.dot(left, tl.trans(tile(right, keys, WIDTH, T, WIDTH, PADDED)), input_precision=PRECISION)
        tl.store(at, product, mask=seen)


@triton.jit
def mixed(y, narrow, second, diagonal, lags, seen, L, RANK: tl.constexpr, P: tl.constexpr, PRECISION: tl.constexpr):
    """y (1 + p) + narrow·secondᵀ, zero where no key is visible. narrow: (y·first) ⊙ control."""
    scale = 1.0 + tl.load(diagonal + lags, mask=lags < L, other=0.0)
    wide = tl.dot(narrow, tl.trans(tile(second, lags, RANK, L, RANK, P)), input_precision=PRECISION)
    return tl.where(seen, y * scale[None, :] + wide, 0.0)


@triton.jit
def mixed_scores(
    buffer,
    which,
    narrow,
    second,
    diagonal,
    lags,
    here,
    T,
    L,
    H,
    RANK: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    BEFORE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(plain, mixed) scores of a set at these lags."""
    at, seen = by_lag(buffer, lags, here, T, R)
    y = tl.load(at, mask=seen, other=0.0)
    if BEFORE:
        return y, mixed(
            y, narrow, second + which * H * L * RANK, diagonal + which * H * L, lags, seen, L, RANK, P, PRECISION
        )
    return y, y


@triton.jit
def narrow_scores(
    buffer,
    which,
    first,
    here,
    stop,
    T,
    L,
    H,
    RANK: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y·first `[R, P]`."""
    low = tl.zeros([R, P], tl.float32)
    for begin in tl.range(0, stop, N, disable_licm=True):
        lags = begin + tl.arange(0, N)
        at, seen = by_lag(buffer, lags, here, T, R)
        table = tile(first + which * H * L * RANK, lags, RANK, L, RANK, P)
        low = tl.dot(tl.load(at, mask=seen, other=0.0), table, low, input_precision=PRECISION)
    return low
