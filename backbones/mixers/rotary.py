"""Rotary positions (arXiv 2104.09864): pairs of channels of q and k turn by an angle proportional to the position.

A true rotation: `‖Rq‖ = ‖q‖`, and `(R_t q)·(R_i k)` depends on `t − i` only. Channels 2c and 2c+1 are a pair.
On a CPU a compiled form turns all pairs in one pass; without one a pair is a complex number and the rotation one
product, 7 times faster than its four real products, which run elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu.call import takes
from kernels.cpu.rows import Rotate

BASE = 10_000.0
_tables: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def rotate(x_BTHw: Tensor, offset: int = 0) -> Tensor:
    """`[B, T, H, w]` (w even), token t at position `offset + t`, to its rotation, of the same shape and dtype."""
    return rotate_all((x_BTHw,), offset)[0]


def rotate_all(xs_BTHw: tuple[Tensor, ...], offset: int = 0) -> tuple[Tensor, ...]:
    """Several tensors of one shape and dtype, queries and keys say, each rotated."""
    first = xs_BTHw[0]
    length, width = first.shape[1], first.shape[3]
    if width % 2:
        raise ValueError(f"rotary positions need an even width a head, given {width}")
    wide = tuple(x if x.dtype in (torch.float32, torch.float64) else x.float() for x in xs_BTHw)
    cos, sin = _rows(offset, length, width, wide[0])
    if all(x.shape == first.shape for x in xs_BTHw) and takes("BTHw " * len(wide) + "T1c T1c", *wide, cos, sin):
        return tuple(y.to(first.dtype) for y in Rotate.apply(cos[:, 0], sin[:, 0], *wide))
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        return tuple(y.to(first.dtype) for y in _Rotate.apply(cos, sin, *wide))
    return tuple(_formula(x, cos, sin).to(first.dtype) for x in wide)


def _rows(offset: int, length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin `[T, 1, w/2]` of positions offset … offset + T − 1; the table grows by doubling and is shared by all
    layers.
    """
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


@torch.inference_mode(False)  # the table is shared: a later training step saves it for backward
@torch.no_grad()
def _table(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    frequency = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _formula(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cos: Tensor, sin: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        turn = torch.complex(cos, sin)
        return tuple(_multiply(x, turn) for x in xs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        turn = torch.complex(cos, -sin)
        return (None, None, *(_multiply(grad, turn) for grad in grads))


def _multiply(x: Tensor, turn: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    if any(stride % 2 for stride in (*pairs.stride()[:-1], pairs.storage_offset())) or pairs.stride(-1) != 1:
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(torch.view_as_complex(pairs), turn, out=torch.view_as_complex(out.unflatten(-1, (-1, 2))))
    return out
