"""Lag mixing by loops over positions, straight from the formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kernels.hyper.lag_mixing import LagMixing
from kernels.numerics.lag_layout import Layout


def visible_keys(t: int, tokens: int, causal: bool, mask_T: Tensor | None) -> list[int]:
    return [i for i in range(t + 1 if causal else tokens) if mask_T is None or bool(mask_T[i])]


def entry(layout: Layout, t: int, i: int) -> int:
    """Which entry of a table belongs to key i at position t."""
    if not layout.by_lag:
        return i
    return t - i if layout.causal else t - i + layout.length - 1


def mix_row(y_V: Tensor, mixing: LagMixing | None, h: int, b: int, t: int, entries: list[int]) -> Tensor:
    """One row over its visible keys: y(1+p) + ((y·first) ⊙ c) secondᵀ."""
    if mixing is None:
        return y_V
    first, second, p = mixing.first_HLr[h, entries], mixing.second_HLr[h, entries], mixing.diagonal_HL[h, entries]
    return y_V * (1 + p) + ((y_V @ first) * mixing.control_HBTr[h, b, t]) @ second.T


def lag_mix_by_loops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: Sequence[LagMixing | None],
    after: LagMixing | None,
    layout: Layout,
    mask_BT: Tensor | None = None,
    eps: float = 1e-12,
) -> Tensor:
    sets, heads, batch, tokens, _ = q.shape
    rows = []
    for h in range(heads):
        for b in range(batch):
            for t in range(tokens):
                seen = visible_keys(t, tokens, layout.causal, None if mask_BT is None else mask_BT[b])
                entries = [entry(layout, t, i) for i in seen]
                scores = [mix_row(k[s, h, b, seen] @ q[s, h, b, t], before[s], h, b, t, entries) for s in range(sets)]
                active = scores[0].relu() / (scores[0].square().sum() + eps).sqrt()
                if sets == 2:
                    active = softplus(scores[1]) * active
                rows.append(mix_row(active, after, h, b, t, entries) @ v[h, b, seen])
    return torch.stack(rows).view(heads, batch, tokens, -1)
