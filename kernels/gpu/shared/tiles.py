"""Parts of kernels: loading a tile of rows, and single rows and columns of a tile in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.shared.elementary import expm1
from kernels.numerics.exponentials import RANGE as _RANGE
from kernels.numerics.exponentials import SMALL_RANGE as _SMALL_RANGE

RANGE = tl.constexpr(_RANGE)
SMALL_RANGE = tl.constexpr(_SMALL_RANGE)


@triton.jit
def tile(base, rows, stride, count, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """`[len(rows), PADDED]`; zeros beyond `count` rows and WIDTH channels."""
    channels = tl.arange(0, PADDED)
    inside = ((rows >= 0) & (rows < count))[:, None] & (channels < WIDTH)[None, :]
    return tl.load(base + rows[:, None] * stride + channels[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(base, rows, stride, count, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The inverse of `tile`."""
    channels = tl.arange(0, PADDED)
    inside = ((rows >= 0) & (rows < count))[:, None] & (channels < WIDTH)[None, :]
    tl.store(base + rows[:, None] * stride + channels[None, :], values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def window(base, rows, stride, count, columns, width):
    """`[len(rows), len(columns)]` in fp32; zeros beyond `count` rows and `width` columns."""
    inside = (rows < count)[:, None] & (columns < width)[None, :]
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_window(base, rows, stride, count, columns, width, values):
    """The inverse of `window`."""
    inside = (rows < count)[:, None] & (columns < width)[None, :]
    at = base + rows[:, None] * stride + columns[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def column(x, n, SIZE: tl.constexpr):
    """Column n of `[m, SIZE]`."""
    return tl.sum(tl.where((tl.arange(0, SIZE) == n)[None, :], x, 0.0), 1)


@triton.jit
def row(x, n, SIZE: tl.constexpr):
    """Row n of `[SIZE, m]`."""
    return tl.sum(tl.where((tl.arange(0, SIZE) == n)[:, None], x, 0.0), 0)


@triton.jit
def carried(u, small_D):
    """w of values in range, as `kernels.numerics.exponentials.carried`.

    Larger values, which no row of the block sees, are clamped, so that they do not overflow.
    """
    cut = tl.where(small_D, SMALL_RANGE, RANGE)[None, :]
    u = tl.minimum(tl.maximum(u, -cut), cut)
    return tl.where(small_D[None, :], expm1(u), tl.exp(u))
