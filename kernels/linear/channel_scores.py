"""Scores inside of chunks with one decay per channel, and their gradients, in PyTorch:

    s_ti = Σ_c x_tc y_ic e^{G_tc − G_ic} for i ≤ t, 0 above,        G = sum of the log-decays ≤ 0 from the chunk's start

Blocks of 8 tokens: a block meets the tokens before it at its border, where both factors are at most 1; the 8×8 on the
diagonal are computed by offsets. Every exponent is ≤ 0, none is clipped, and differences of G are taken in fp64.

Shape letters: B sequences, T tokens, H heads, k channels, n chunks of C tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 64
BLOCK = 8


def chunked(x_BTHw: Tensor) -> Tensor:
    """The tokens in chunks, zeros after the last one.

    Args:
        x_BTHw: any tensor `[B, T, H, w]`.

    Returns:
        `[B, H, n, C, w]`; C is CHUNK, or the whole of a shorter sequence.
    """
    T = x_BTHw.shape[1]
    chunk = min(CHUNK, -(-T // BLOCK) * BLOCK)
    padded = pad(x_BTHw, (0, 0, 0, 0, 0, -T % chunk)) if T % chunk else x_BTHw
    return padded.unflatten(1, (-1, chunk)).permute(0, 3, 1, 2, 4).contiguous()


def whole(x_BHnCw: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `chunked`.

    Args:
        x_BHnCw: tokens in chunks.
        shape: `[B, T, H, w]`.

    Returns:
        A tensor of that shape.
    """
    return x_BHnCw.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, : shape[1]].contiguous()


def channel_scores(x: Tensor, y: Tensor, total: Tensor) -> Tensor:
    """The scores above.

    Args:
        x: rows `[B, H, n, C, k]`.
        y: columns `[B, H, n, C, k]`.
        total: G in fp64 `[B, H, n, C, k]`.

    Returns:
        `[B, H, n, C, C]`, zero above the diagonal.
    """
    C = x.shape[-2]
    scores = x.new_zeros(*x.shape[:-1], C)
    for rows, before, to_left, to_right in _borders(total, C, x.dtype):
        scores[..., rows, before] = (x[..., rows, :] * to_left) @ (y[..., before, :] * to_right).transpose(-1, -2)
    x_, y_, total_ = (_in_blocks(z) for z in (x, y, total))
    squares = x.new_zeros(*x_.shape[:-1], BLOCK)
    for offset in range(BLOCK):
        later, earlier = slice(offset, BLOCK), slice(0, BLOCK - offset)
        gap = _gap(total_, later, earlier, x.dtype)
        squares.diagonal(-offset, -2, -1).copy_(gap.mul_(x_[..., later, :]).mul_(y_[..., earlier, :]).sum(-1))
    for block in range(C // BLOCK):
        place = slice(block * BLOCK, (block + 1) * BLOCK)
        scores[..., place, place] = squares[..., block, :, :]
    return scores


def channel_scores_backward(grad: Tensor, x: Tensor, y: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows and columns.

    Args:
        grad: of the scores `[B, H, n, C, C]`, zero above the diagonal.
        x: as for the scores.
        y: as for the scores.
        total: as for the scores.

    Returns:
        The gradients of x and of y; that of G is `x·∂x − y·∂y`.
    """
    C = x.shape[-2]
    grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
    for rows, before, to_left, to_right in _borders(total, C, x.dtype):
        block = grad[..., rows, before]
        grad_x[..., rows, :] += (block @ (y[..., before, :] * to_right)) * to_left
        grad_y[..., before, :] += (block.transpose(-1, -2) @ (x[..., rows, :] * to_left)) * to_right
    x_, y_, total_, to_x, to_y = (_in_blocks(z) for z in (x, y, total, grad_x, grad_y))
    places = [slice(start, start + BLOCK) for start in range(0, C, BLOCK)]
    squares = torch.stack([grad[..., place, place] for place in places], dim=-3)
    for offset in range(BLOCK):
        later, earlier = slice(offset, BLOCK), slice(0, BLOCK - offset)
        gap = _gap(total_, later, earlier, x.dtype)
        gap *= squares.diagonal(-offset, -2, -1)[..., None]
        to_x[..., later, :].addcmul_(gap, y_[..., earlier, :])
        to_y[..., earlier, :].addcmul_(gap, x_[..., later, :])
    return grad_x, grad_y


def _borders(total: Tensor, C: int, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Of each block but the first: its rows, the tokens before it, and the decays from the border to the former and
    from the latter to the border.
    """
    for start in range(BLOCK, C, BLOCK):
        rows, before, border = slice(start, start + BLOCK), slice(0, start), slice(start - 1, start)
        yield rows, before, _gap(total, rows, border, dtype), _gap(total, border, before, dtype)


def _gap(total: Tensor, later: slice, earlier: slice, dtype: torch.dtype) -> Tensor:
    """e^{G_later − G_earlier}"""
    return (total[..., later, :] - total[..., earlier, :]).to(dtype).exp_()


def _in_blocks(x: Tensor) -> Tensor:
    return x.unflatten(-2, (-1, BLOCK))
