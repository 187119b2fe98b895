"""Rotary positions (arXiv 2104.09864): pairs of channels of q and k turn by an angle proportional to the position.

A true rotation: `‖Rq‖ = ‖q‖`, and `(R_t q)·(R_i k)` depends on `t − i` only. Channels 2c and 2c+1 are a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu.bf16.choice import autocast_in_bf16
from kernels.rows import rotate_pairs

BASE = 10_000.0
_tables: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def rotate(x_BTHw: Tensor, offset: int = 0) -> Tensor:
    """Rotates `[B, T, H, w]` (w even), with token t at position `offset + t`; keeps the shape and, except as in
    `rotate_all`, the dtype.
    """
    return rotate_all((x_BTHw,), offset)[0]


def rotate_all(xs_BTHw: tuple[Tensor, ...], offset: int = 0) -> tuple[Tensor, ...]:
    """Rotates several tensors of one shape and dtype, queries and keys say.

    Under bf16 autocast on a CPU the results stay in the fp32 of the rotation: attention computes in fp32 there, and
    rounding and widening in between would cost as much as the rotation.
    """
    first = xs_BTHw[0]
    length, width = first.shape[1], _even(first.shape[3])
    wide = tuple(x if x.dtype in (torch.float32, torch.float64) else x.float() for x in xs_BTHw)
    turned = rotate_pairs(wide, *_rows(offset, length, width, wide[0]))
    if first.device.type == "cpu" and autocast_in_bf16():
        return turned
    return tuple(y.to(first.dtype) for y in turned)


def turn(x_BTHw: Tensor, offset: int = 0) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines `[T, 1, w/2]` of positions from `offset` on, with which `kernels.attention.softmax_read`
    rotates x; None where x is rotated before: elsewhere than on a CPU, in half precision, and under autocast, which
    would round it.
    """
    wide = x_BTHw.dtype in (torch.float32, torch.float64)
    if not wide or x_BTHw.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return None
    return _rows(offset, x_BTHw.shape[1], _even(x_BTHw.shape[3]), x_BTHw)


def angles(position: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[w/2]` of the angles of one token's pairs of channels, in the dtype of `like`."""
    cos_11c, sin_11c = _rows(position, 1, width, like)
    return cos_11c[0, 0], sin_11c[0, 0]


def _even(width: int) -> int:
    if width % 2:
        raise ValueError(f"rotary positions need an even width per head, {width} was given")
    return width


def _rows(offset: int, length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin `[T, 1, w/2]` of positions offset … offset + T − 1, from a table that all layers share."""
    end = offset + length
    if torch.compiler.is_compiling():  # a traced graph must not contain a cached tensor
        cos, sin = _table(end, width, like)
    else:
        key = (width, like.device, like.dtype)
        cos, sin = _tables.get(key, (like.new_empty(0), like.new_empty(0)))
        if cos.shape[0] < end:
            cos, sin = _table(1 << (end - 1).bit_length(), width, like)
            if type(cos) is Tensor:  # never a fake or traced one
                _tables[key] = (cos, sin)
    return cos[offset:end, None], sin[offset:end, None]


@torch.inference_mode(False)  # the table is shared: a later training step may save it for backward
@torch.no_grad()
def _table(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    frequency = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)
