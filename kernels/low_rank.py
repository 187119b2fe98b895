"""FEM's low-rank convolution with data-dependent decay (arXiv 2602.07160): a few projections of the normalised input,
and the scan of a few channels that they drive, O(T·R):

    [a, u, s]_t = LayerNorm(x_t) Wᵀ,   h_t = exp(−softplus(a_t)) ⊙ h_{t−1} + u_t,
    y_t = RMS(softplus(s_t)) ⊙ LayerNorm(h_t)

It runs in fp64. LayerNorm(h) over two channels enlarges rounding up to eps^(−1/2) times in gradients: in fp32 those of
W were up to 1.6e-4 of the largest off. R is a few channels, so fp64 costs little.

Shape letters: B sequences, T tokens, D input channels, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, softplus

from kernels.cpu.call import NAMES, takes_mixed
from kernels.cpu.low_rank import LowRankScan, NormedProjection
from kernels.gates import EPS, rms
from kernels.numerics.nothing import nothing
from kernels.scan import diagonal_scan

STATE_EPS = 1e-5  # of LayerNorm(h), as in the authors' code


def normed_projection(x_BTD: Tensor, weight_RD: Tensor, eps: float = 1e-5) -> Tensor:
    """`LayerNorm(x) Wᵀ` for a W of few rows, LayerNorm without gains, computed in fp64.

    Args:
        x_BTD: inputs `[B, T, D]`.
        weight_RD: the weights W `[R, D]`.
        eps: added to the variance.

    Returns:
        `[B, T, R]`, in the dtype of W.
    """
    wide_RD = weight_RD.double()
    if x_BTD.numel() == 0:
        return nothing((*x_BTD.shape[:-1], len(wide_RD)), weight_RD, x_BTD)
    if x_BTD.dtype in NAMES and takes_mixed("*D RD", x_BTD, wide_RD):
        out: Tensor = NormedProjection.apply(x_BTD, wide_RD, eps)
        return out.to(weight_RD.dtype)
    normed_BTD = layer_norm(x_BTD.double(), x_BTD.shape[-1:], eps=eps)
    return linear(normed_BTD, wide_RD).to(weight_RD.dtype)


def low_rank_scan(
    given_BT3R: Tensor, causal: bool, mask_BT: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """What the projections of each token make of a few channels.

    Args:
        given_BT3R: a, u and s of each token `[B, T, 3R]`; computed in fp64.
        causal: whether all channels scan from the first token on; else the second half of them, ⌊R/2⌋, scans from
            the end.
        mask_BT: bool `[B, T]`, True at tokens that count: the others leave h as it is. None if all do.
        dtype: of the result, fp32 or fp64.

    Returns:
        y `[B, T, R]`.

    Raises:
        ValueError: the last dimension does not hold three equal parts.
    """
    if given_BT3R.shape[-1] % 3 or not given_BT3R.shape[-1]:
        raise ValueError(f"a, u and s need 3 R channels, {given_BT3R.shape[-1]} were given")
    mask_BT = None if mask_BT is None else mask_BT.bool()
    rank, wide_BT3R = given_BT3R.shape[-1] // 3, given_BT3R.double()
    if wide_BT3R.numel() == 0:
        return nothing((*wide_BT3R.shape[:-1], rank), wide_BT3R).to(dtype)
    forward = rank if causal else rank - rank // 2
    masks = [] if mask_BT is None else [mask_BT]
    if dtype in NAMES and takes_mixed("BTr" + " BT" * len(masks), wide_BT3R, *masks):
        hidden = None if mask_BT is None else (~mask_BT).to(torch.uint8)
        out: Tensor = LowRankScan.apply(wide_BT3R, hidden, forward, dtype, STATE_EPS, EPS)
        return out
    a, u, s = wide_BT3R.chunk(3, dim=-1)
    keep = torch.exp(-softplus(a))
    if mask_BT is not None:
        keep, u = keep.masked_fill(~mask_BT[..., None], 1.0), u.masked_fill(~mask_BT[..., None], 0.0)
    halves = [diagonal_scan(keep[..., :forward], u[..., :forward])]
    if forward < rank:
        halves.append(diagonal_scan(keep[..., forward:], u[..., forward:], reverse=True))
    return scaled(s, torch.cat(halves, dim=-1)).to(dtype)


def scaled(s: Tensor, h: Tensor) -> Tensor:
    """`RMS(softplus(s)) ⊙ LayerNorm(h)` over the last dimension, R channels."""
    return rms(softplus(s)) * layer_norm(h, h.shape[-1:], eps=STATE_EPS)
