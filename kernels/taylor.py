"""Attention with the second Taylor polynomial of the exponential in its place (arXiv 2510.11602):

    w_t(i) = 1 + s + s²/2 = ((s + 1)² + 1)/2 ≥ ½,   s = q_t·k_i/√d
    out_t  = Σ_i w_t(i) v_i / Σ_i w_t(i)            over the visible i

The weights are an inner product φ(q)·φ(k) of F = 1 + d + d(d+1)/2 features, φ(x) = [1, x/d^¼, x_a x_b/√d (a < b),
x_a²/√(2d)], so a running sum of φ(k) ⊗ [v, 1] computes it in time linear in T; up to T = F the T×T matrix of weights is
cheaper. The denominator is never zero.

Shape letters: B sequences, T tokens, H heads, d and w channels per head of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.numerics.precision import full_precision

CHUNK = 64
LEAST_MASS = 0.25  # a visible key weighs ½ or more: a smaller sum is rounding, or no key is visible


def feature_count(width: int) -> int:
    """The number of features F of a head.

    Args:
        width: channels d of the head.

    Returns:
        F = 1 + d + d(d+1)/2.
    """
    return 1 + width + width * (width + 1) // 2


def features(x: Tensor) -> Tensor:
    """The features φ: φ(q)·φ(k) = 1 + s + s²/2.

    Args:
        x: queries or keys `[…, d]`.

    Returns:
        `[…, F]`.
    """
    d = x.shape[-1]
    a, b = torch.triu_indices(d, d, device=x.device)
    weight = x.new_full(a.shape, d**-0.5).masked_fill(a == b, (2 * d) ** -0.5)
    return torch.cat([torch.ones_like(x[..., :1]), x * d**-0.25, x[..., a] * x[..., b] * weight], dim=-1)


def with_ones(v: Tensor) -> Tensor:
    """Appends a channel of ones: in a weighted sum it becomes the denominator.

    Args:
        v: values `[…, w]`.

    Returns:
        `[…, w + 1]`.
    """
    return torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)


def ratio(sums: Tensor) -> Tensor:
    """The weighted mean.

    Args:
        sums: weighted sums over `[v, 1]`, `[…, w + 1]`.

    Returns:
        `[…, w]`; 0 where no key was visible.
    """
    return sums[..., :-1] / sums[..., -1:].clamp_min(LEAST_MASS)


def taylor_weights(q_BHTd: Tensor, k_BHTd: Tensor, causal: bool, mask_BT: Tensor | None) -> Tensor:
    """All weights w.

    Args:
        q_BHTd: queries `[B, H, T, d]`.
        k_BHTd: keys `[B, H, T, d]`.
        causal: whether row t sees keys i ≤ t only.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.

    Returns:
        `[B, H, T, T]`, zero at keys that are not visible.
    """
    s = torch.matmul(q_BHTd, k_BHTd.transpose(-1, -2)) * q_BHTd.shape[-1] ** -0.5
    w = ((s + 1.0).square() + 1.0) * 0.5
    if mask_BT is not None:
        w = w * mask_BT[:, None, None]
    return w.tril() if causal else w


@full_precision
def taylor_read(
    q_BTHd: Tensor,
    k_BTHd: Tensor,
    v_BTHw: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    linear: bool | None = None,
) -> Tensor:
    """Mean of the visible values under the polynomial weights, computed in fp32 at least.

    Args:
        q_BTHd: queries `[B, T, H, d]`.
        k_BTHd: keys `[B, T, H, d]`.
        v_BTHw: values `[B, T, H, w]`.
        causal: whether row t sees keys i ≤ t only.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.
        linear: True for running sums of features, False for the T×T weights; None for the cheaper one at this length.

    Returns:
        `[B, T, H, w]` in the dtype of the values; rows that see no key are 0.
    """
    dtype = torch.promote_types(v_BTHw.dtype, torch.float32)
    q, k, v = (z.transpose(1, 2).to(dtype) for z in (q_BTHd, k_BTHd, with_ones(v_BTHw)))
    if linear is None:
        linear = q.shape[2] > feature_count(q.shape[-1])
    sums = _linear(q, k, v, causal, mask_BT) if linear else torch.matmul(taylor_weights(q, k, causal, mask_BT), v)
    return ratio(sums).to(v_BTHw.dtype).transpose(1, 2)


def _linear(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask_BT: Tensor | None) -> Tensor:
    """By chunks with a running state; features exist for one chunk at a time and are computed again in backward."""
    if mask_BT is not None:
        v = v * mask_BT[:, None, :, None]
    state = v.new_zeros(*v.shape[:2], feature_count(q.shape[-1]), v.shape[-1])
    parts = [z.split(CHUNK, dim=2) for z in (q, k, v)]
    if not causal:
        for k_c, v_c in zip(*parts[1:], strict=True):
            state = checkpoint(_add, state, k_c, v_c, use_reentrant=False)
        return torch.cat([checkpoint(_look_up, q_c, state, use_reentrant=False) for q_c in parts[0]], dim=2)
    out = []
    for q_c, k_c, v_c in zip(*parts, strict=True):
        out.append(
            checkpoint(_look_up, q_c, state, use_reentrant=False)
            + torch.matmul(taylor_weights(q_c, k_c, True, None), v_c)
        )
        state = checkpoint(_add, state, k_c, v_c, use_reentrant=False)
    return torch.cat(out, dim=2)


def _add(state: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return state + torch.matmul(features(k).transpose(-1, -2), v)


def _look_up(q: Tensor, state: Tensor) -> Tensor:
    return torch.matmul(features(q), state)
