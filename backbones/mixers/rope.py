"""Rotary positions (arXiv 2104.09864): pairs of channels of q and k turn by an angle proportional to the position.

A true rotation in real arithmetic: `‖Rq‖ = ‖q‖`, and `(R_t q)·(R_i k)` depends on `t − i` only. Channel c is paired with c + w/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0
_tables: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def rotate(x_BTHw: Tensor, offset: int = 0) -> Tensor:
    """`[B, T, H, w]` (w even), token t at position `offset + t`, to its rotation, of the same shape and dtype."""
    length, width = x_BTHw.shape[1], x_BTHw.shape[3]
    if width % 2:
        raise ValueError(f"rotary positions need an even width a head, given {width}")
    wide = x_BTHw if x_BTHw.dtype in (torch.float32, torch.float64) else x_BTHw.float()
    cos, sin = _rows(offset, length, width, wide)
    if torch.compiler.is_compiling():
        return _formula(wide, cos, sin).to(x_BTHw.dtype)
    turned: Tensor = _Rotate.apply(wide, cos, sin)
    return turned.to(x_BTHw.dtype)


def _rows(offset: int, length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin `[T, 1, w/2]` of positions offset … offset + T − 1; the table grows by doubling and is shared by all layers."""
    end = offset + length
    if torch.compiler.is_compiling():  # a traced graph must hold no cached tensor
        cos, sin = _table(end, width, like)
    else:
        key = (width, like.device, like.dtype)
        cos, sin = _tables.get(key, (like.new_empty(0), like.new_empty(0)))
        if cos.shape[0] < end:
            cos, sin = _table(1 << (end - 1).bit_length(), width, like)
            if type(cos) is Tensor:  # never a fake or traced one
                _tables[key] = (cos, sin)
    return cos[offset:end, None], sin[offset:end, None]


def _table(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    frequency = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _formula(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    """The formula without temporaries; sign −1 turns back."""
    half = x.shape[-1] // 2
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    a, b = x[..., :half], x[..., half:]
    torch.mul(a, cos, out=out[..., :half]).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=out[..., half:]).addcmul_(a, sin, value=sign)
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1.0), None, None
