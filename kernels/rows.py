"""Operations on one row at a time that every backbone uses, in C++ on CPUs where there is a compiler:

    rms_norm(x, gain) = x / sqrt(mean(x²) + eps) · gain                     arXiv 1910.07467
    swiglu(x, [G; U], D) = (silu(x Gᵀ) ⊙ x Uᵀ) Dᵀ                           arXiv 2002.05202
    feed_forward(x, m) = h + swiglu(rms_norm(h)), h = x + m                 pre-norm residual blocks, arXiv 2002.04745
    rotate_pairs: (a, b) → (a cos θ − b sin θ, a sin θ + b cos θ)           arXiv 2104.09864

Without a compiler a pair of channels to rotate is a complex number, and the rotation one product: 7 times faster on a
CPU than its four real products, which run elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cpu import rows as cpu
from kernels.cpu.bf16.choice import takes_half
from kernels.cpu.bf16.functions import SwiGluBf16
from kernels.cpu.call import multiplies, takes
from kernels.numerics.nothing import nothing


def rms_norm(x: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension.

    Args:
        x: `[…, D]`.
        gain_D: `[D]`; a gain of another dtype than x is promoted by PyTorch.
        eps: added to the mean of the squares.

    Returns:
        `[…, D]`.
    """
    if takes("*D D", x, gain_D):
        out: Tensor = cpu.RmsNorm.apply(x, gain_D, eps)
        return out
    return F.rms_norm(x, gain_D.shape, gain_D, eps)


def swiglu(x: Tensor, up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """The feed-forward part of a block.

    Args:
        x: `[…, D]`.
        up_2FD: the weights `[G; U]` of gate and values `[2F, D]`.
        down_DF: the output weights `[D, F]`.

    Returns:
        `[…, D]`; under autocast in its dtype.
    """
    function: type[cpu.SwiGlu] | type[SwiGluBf16] | None = None
    if len(up_2FD) == 2 * down_DF.shape[-1]:
        if takes_half("swiglu", "c++ in bf16", "*D UD DF", x, up_2FD, down_DF):
            function = SwiGluBf16
        elif not torch.is_autocast_enabled("cpu") and multiplies("*D UD DF", x, up_2FD, down_DF):
            function = cpu.SwiGlu
    if function is not None:
        out: Tensor = function.apply(x, up_2FD, down_DF)
        return out
    gate, up = F.linear(x, up_2FD).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down_DF)


def feed_forward(x: Tensor, m: Tensor, gain_D: Tensor, up_2FD: Tensor, down_DF: Tensor, eps: float) -> Tensor:
    """The rest of a block after its mixer, in one pass over the rows: `h = x + m`, then `h + swiglu(rms_norm(h))`.

    Args:
        x: hidden states before the mixer `[…, D]`.
        m: what the mixer made of them `[…, D]`.
        gain_D: of the norm `[D]`.
        up_2FD: as in `swiglu`.
        down_DF: as in `swiglu`.
        eps: of the norm.

    Returns:
        `[…, D]`.
    """
    if (
        x.shape == m.shape
        and len(up_2FD) == 2 * down_DF.shape[-1]
        and multiplies("*D *D D UD DF", x, m, gain_D, up_2FD, down_DF)
        and not torch.is_autocast_enabled("cpu")
    ):
        out: Tensor = cpu.FeedForward.apply(x, m, gain_D, up_2FD, down_DF, eps)
        return out
    h = x + m
    return h + swiglu(rms_norm(h, gain_D, eps), up_2FD, down_DF)


def rotate_pairs(xs_BTHw: Sequence[Tensor], cos_T1c: Tensor, sin_T1c: Tensor) -> tuple[Tensor, ...]:
    """Rotates pairs of channels (2c, 2c + 1) by the angle of their token and pair.

    Args:
        xs_BTHw: tensors `[B, T, H, w]` of one dtype, w even.
        cos_T1c: cosines of the angles `[T, 1, w/2]`.
        sin_T1c: their sines `[T, 1, w/2]`. No gradient goes to either.

    Returns:
        The rotated tensors `[B, T, H, w]`, in order.

    Raises:
        ValueError: the tables are those of another number of tokens or channels.
    """
    first = xs_BTHw[0]
    require_tables(xs_BTHw, cos_T1c, sin_T1c)
    if first.numel() == 0:
        return tuple(nothing(x.shape, x) for x in xs_BTHw)
    shapes = "BTHw " * len(xs_BTHw) + "T1c T1c"
    if all(x.shape == first.shape for x in xs_BTHw) and takes(shapes, *xs_BTHw, cos_T1c, sin_T1c):
        out: tuple[Tensor, ...] = cpu.Rotate.apply(cos_T1c[:, 0], sin_T1c[:, 0], *xs_BTHw)
        return out
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        turned: tuple[Tensor, ...] = _Rotate.apply(cos_T1c, sin_T1c, *xs_BTHw)
        return turned
    return tuple(_rotated(x, cos_T1c, sin_T1c) for x in xs_BTHw)


def require_tables(xs_BTHw: Sequence[Tensor], cos_T1c: Tensor, sin_T1c: Tensor) -> None:
    """Refuses tables that do not rotate each of the tensors: the compiled rotation would read beyond their ends.

    Args:
        xs_BTHw: as in `rotate_pairs`.
        cos_T1c: as in `rotate_pairs`.
        sin_T1c: as in `rotate_pairs`.

    Raises:
        ValueError: they are those of another number of tokens or channels.
    """
    for x in xs_BTHw:
        if cos_T1c.shape != (x.shape[1], 1, x.shape[3] // 2) or x.shape[3] % 2 or sin_T1c.shape != cos_T1c.shape:
            raise ValueError(
                f"tables {tuple(cos_T1c.shape)} and {tuple(sin_T1c.shape)} do not rotate tensors of {x.shape[1]} "
                f"tokens and {x.shape[3]} channels: (tokens, 1, channels / 2) is needed"
            )


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
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
        if torch.is_grad_enabled():  # it is linear: its gradient is a rotation too
            return (None, None, *_Rotate.apply(cos, -sin, *grads))
        turn = torch.complex(cos, -sin)
        return (None, None, *(_multiply(grad, turn) for grad in grads))


def _multiply(x: Tensor, turn: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    if any(stride % 2 for stride in (*pairs.stride()[:-1], pairs.storage_offset())) or pairs.stride(-1) != 1:
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(torch.view_as_complex(pairs), turn, out=torch.view_as_complex(out.unflatten(-1, (-1, 2))))
    return out
