"""One token of short convolutions and of FEM's low-rank convolution, compiled; the states are written in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.decoding.running import run, steps_with


def silu_convolution_step(past_BJc: Tensor, x_Bc: Tensor, taps_Jc: Tensor, bias_c: Tensor | None) -> Tensor | None:
    """One token of a short convolution and SiLU; the last inputs are written in place.

    Args:
        past_BJc: the last J − 1 inputs `[B, J − 1, c]`, the newest first.
        x_Bc: the token's input `[B, c]`, with any distance between sequences.
        taps_Jc: weights `[J, c]`, that of the token itself first.
        bias_c: added before SiLU `[c]`; None for none.

    Returns:
        `[B, c]`; None where the compiled library does not take the call, and nothing has changed.
    """
    B, past, c = past_BJc.shape
    if not steps_with((past_BJc,), x_Bc, taps_Jc, bias_c) or x_Bc.shape != (B, c) or x_Bc.stride(-1) != 1:
        return None
    if taps_Jc.shape != (past + 1, c) or (bias_c is not None and bias_c.shape != (c,)):
        return None
    y_Bc = torch.empty((B, c), dtype=x_Bc.dtype)
    tensors = [x_Bc, taps_Jc.contiguous(), bias_c if bias_c is None else bias_c.contiguous(), y_Bc]
    run("silu_convolution_step", [past_BJc], tensors, [], [B, past + 1, c, x_Bc.stride(0)])
    return y_Bc


def convolution_step(h_BR: Tensor, x_BD: Tensor, weight_3RD: Tensor, eps: Sequence[float]) -> Tensor | None:
    """One token of FEM's low-rank convolution; its state is written in place.

    Args:
        h_BR: the state `[B, R]`.
        x_BD: the layer's input `[B, D]`.
        weight_3RD: the maps to decay, input and scale `[3R, D]`.
        eps: of the norm of x, of the norm of h and of the scale's RMS.

    Returns:
        The factors `[B, R]`; None where the compiled library does not take the call.
    """
    (B, R), D = h_BR.shape, x_BD.shape[-1]
    if not steps_with((h_BR,), x_BD, weight_3RD) or x_BD.shape != (B, D) or weight_3RD.shape != (3 * R, D):
        return None
    s_BR = torch.empty_like(h_BR)
    run("convolution_step", [h_BR], [x_BD.contiguous(), weight_3RD.contiguous(), s_BR], eps, [B, D, R])
    return s_BR
