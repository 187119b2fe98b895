"""Attention whose logits come from the keys alone (arXiv 2510.11602): all positions use the same weights.

    out_t = Σ_{i≤t} e^{l_i} v_i / Σ_{i≤t} e^{l_i}          not causal: over all i, the same for every t

O(T): with L_t = log Σ_{i≤t} e^{l_i} it is the scan `y_t = (1 − s_t) y_{t−1} + s_t v_t`, `s_t = sigmoid(l_t − L_{t−1})`:
a mean of means, so weights sum to 1 however large the logits. L and s, one number per head and token, are computed in
fp64: at logits of 10⁴ fp32 leaves three digits of them. Masked tokens have the logit HIDDEN and the value 0.

Shape letters: B sequences, T tokens, H heads, w channels per head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.numerics.nothing import nothing
from kernels.scan import diagonal_scan

HIDDEN = -1e30  # relative to any ordinary logit its exponential is exactly 0, and differences of it stay finite


def prefix_softmax_read(logits_BTH: Tensor, v_BTHw: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """Mean of the visible values under the softmax of their logits, computed in fp32 at least.

    Args:
        logits_BTH: one logit per key `[B, T, H]`, any finite size.
        v_BTHw: values `[B, T, H, w]`.
        causal: whether row t sees keys i ≤ t only.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.

    Returns:
        `[B, T, H, w]` in the dtype of the values; rows that see no key are 0.
    """
    if v_BTHw.numel() == 0:
        return nothing(v_BTHw.shape, v_BTHw, logits_BTH)
    dtype = torch.promote_types(v_BTHw.dtype, torch.float32)
    logits, v = logits_BTH.to(dtype), v_BTHw.to(dtype)
    if mask_BT is not None:
        logits, v = logits.masked_fill(~mask_BT[..., None], HIDDEN), v.masked_fill(~mask_BT[..., None, None], 0.0)
    if not causal:
        mean_B1Hw = (logits.softmax(1)[..., None] * v).sum(1, keepdim=True)
        return mean_B1Hw.expand_as(v).to(v_BTHw.dtype)
    wide_BHT = logits.transpose(1, 2).double().contiguous()
    before_BHT = torch.cat([torch.full_like(wide_BHT[..., :1], HIDDEN), wide_BHT.logcumsumexp(-1)[..., :-1]], dim=-1)
    gap_BTH = (wide_BHT - before_BHT).transpose(1, 2)
    new_BTH, kept_BTH = gap_BTH.sigmoid().to(dtype), gap_BTH.neg().sigmoid().to(dtype)
    kept_BTE = kept_BTH.repeat_interleave(v.shape[-1], dim=-1)
    return diagonal_scan(kept_BTE, (new_BTH[..., None] * v).flatten(2)).view_as(v).to(v_BTHw.dtype)


def prefix_softmax_step(logit_BH: Tensor, v_BHw: Tensor, mass_BH: Tensor, y_BHw: Tensor) -> tuple[Tensor, Tensor]:
    """One token of decoding. L is fp64: at logits of 10³ fp32 keeps four decimals of it.

    Args:
        logit_BH: the token's logit `[B, H]`.
        v_BHw: its value `[B, H, w]`.
        mass_BH: L of the tokens before it `[B, H]`, fp64; HIDDEN before the first.
        y_BHw: the read of the tokens before it `[B, H, w]`; 0 before the first.

    Returns:
        L `[B, H]` and the read y `[B, H, w]` with this token.
    """
    wide_BH = logit_BH.double()
    new_BH1 = (wide_BH - mass_BH).sigmoid()[..., None].to(v_BHw.dtype)
    return torch.logaddexp(mass_BH, wide_BH), torch.lerp(y_BHw, v_BHw, new_BH1)
