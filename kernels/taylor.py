"""Attention with the second Taylor polynomial of the exponential in its place (arXiv 2510.11602):

    w_t(i) = 1 + s + s²/2 = ((s + 1)² + 1)/2 ≥ ½,   s = q_t·k_i/√d,      out_t = Σ_i w_t(i) v_i / Σ_i w_t(i)     over
    the visible i

The weights are an inner product φ(q)·φ(k) of F = 1 + d + d(d+1)/2 features, φ(x) = [1, x/d^¼, x_a x_b/√d (a < b),
x_a²/√(2d)], so a running sum of φ(k) ⊗ [v, 1] does it in time linear in T; up to T = F the T×T form is cheaper. One
ratio: a denominator is never zero. Contract: q, k `[B, T, H, d]`, v `[B, T, H, w]`; out `[B, T, H, w]` in v's dtype,
computed in fp32 at least. A row that sees nothing is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.numerics.precision import full_precision

CHUNK = 64
LEAST_MASS = 0.25  # a visible key weighs ½ or more: below that there is rounding, or nothing to see


def feature_count(width: int) -> int:
    """F of a head of d channels."""
    return 1 + width + width * (width + 1) // 2


def features(x: Tensor) -> Tensor:
    """φ: `[…, d]` to `[…, F]`; φ(q)·φ(k) = 1 + s + s²/2."""
    d = x.shape[-1]
    a, b = torch.triu_indices(d, d, device=x.device)
    weight = x.new_full(a.shape, d**-0.5).masked_fill(a == b, (2 * d) ** -0.5)
    return torch.cat([torch.ones_like(x[..., :1]), x * d**-0.25, x[..., a] * x[..., b] * weight], dim=-1)


def with_ones(v: Tensor) -> Tensor:
    """`[v, 1]`: the last channel of a weighted sum is the denominator."""
    return torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)


def ratio(sums: Tensor) -> Tensor:
    """The weighted mean from sums over `[v, 1]`."""
    return sums[..., :-1] / sums[..., -1:].clamp_min(LEAST_MASS)


def taylor_weights(q_BHTd: Tensor, k_BHTd: Tensor, causal: bool, mask_BT: Tensor | None) -> Tensor:
    """w, `[B, H, T, T]`, zero where a key isn't seen."""
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
    """`linear` chooses the form; by default by length."""
    dtype = torch.promote_types(v_BTHw.dtype, torch.float32)
    q, k, v = (z.transpose(1, 2).to(dtype) for z in (q_BTHd, k_BTHd, with_ones(v_BTHw)))
    if linear is None:
        linear = q.shape[2] > feature_count(q.shape[-1])
    sums = _linear(q, k, v, causal, mask_BT) if linear else torch.matmul(taylor_weights(q, k, causal, mask_BT), v)
    return ratio(sums).to(v_BTHw.dtype).transpose(1, 2)


def _linear(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask_BT: Tensor | None) -> Tensor:
    """Chunk by chunk with a running state; features live inside a chunk only, in backward they are computed again."""
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
