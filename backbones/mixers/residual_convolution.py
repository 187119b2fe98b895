"""A short convolution that is added to its own input (a Canon layer, arXiv 2512.17351), at once and token by token:

y_t = z_t + Σ_{j=0..3} w_j ⊙ z_{t−j}             no bias, no activation; not causal: equal taps on both sides
"""

from __future__ import annotations

from torch import Tensor

from kernels.short_conv import short_conv, short_conv_step


def residual_convolution(z_BTc: Tensor, taps_Jc: Tensor, causal: bool) -> Tensor:
    """The inputs plus their convolution.

    Args:
        z_BTc: inputs `[B, T, c]`, zero at padded positions.
        taps_Jc: weights `[J, c]`, that of the token itself first.
        causal: past tokens only; otherwise the taps apply to both sides.

    Returns:
        y `[B, T, c]`, in the inputs' dtype.
    """
    return short_conv(z_BTc, taps_Jc.to(z_BTc.dtype), causal, residual=True)


def residual_convolution_step(z_Bc: Tensor, past_BJc: Tensor, taps_Jc: Tensor) -> tuple[Tensor, Tensor]:
    """One token of decoding under the causal convolution.

    Args:
        z_Bc: the token's input `[B, c]`.
        past_BJc: the last J − 1 inputs (not outputs) `[B, J − 1, c]`, the newest first; zeros before the first token.
        taps_Jc: weights `[J, c]`, that of the token itself first.

    Returns:
        y `[B, c]`, and the last inputs after the token.
    """
    added_Bc, past_BJc = short_conv_step(z_Bc, past_BJc, taps_Jc)
    return z_Bc + added_Bc, past_BJc


def without_padding(x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Inputs that are zero at padded positions, as a convolution needs them.

    Args:
        x_BTD: `[B, T, D]`.
        mask_BT: `[B, T]`, True at real tokens; None where there is no padding.

    Returns:
        `[B, T, D]`.
    """
    return x_BTD if mask_BT is None else x_BTD.masked_fill(~mask_BT[..., None], 0.0)
