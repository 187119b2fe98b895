"""Exclusive self-attention (arXiv 2603.09078): softmax attention without the part of its read along the own value.

    o_t ← o_t − tanh(α_h) (o_t·v̂_t) v̂_t,      v̂_t = v_t / max(‖v_t‖, 10⁻⁴),      α_h = 0 at start

It starts as softmax attention; with α → ∞ a token reads nothing along its own value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from backbones.mixers.attention.base import ProjectedAttention
from backbones.mixers.base import MixerConfig
from backbones.mixers.registry import register

LEAST_NORM = 1e-4


@register("xsa")
class ExclusiveAttention(ProjectedAttention):
    """Softmax attention that can exclude what a token says itself."""

    paper = "arXiv 2603.09078"
    summary = "exclusive self-attention: softmax without the part along the token's own value"
    no_weight_decay = frozenset({"alpha"})

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.alpha = nn.Parameter(torch.empty(config.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.alpha)

    def finish(self, y_BTHd: Tensor, v_BTHd: Tensor, x_BTD: Tensor) -> Tensor:
        own_BTHd = normalize(v_BTHd, dim=-1, eps=LEAST_NORM)
        along_BTH1 = (y_BTHd * own_BTHd).sum(-1, keepdim=True)
        return y_BTHd - self.alpha.tanh()[:, None].to(y_BTHd.dtype) * along_BTH1 * own_BTHd

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        return matrices, others + config.heads
