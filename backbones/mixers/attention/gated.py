"""Gated attention (arXiv 2505.06708): a sigmoid gate on the read of softmax attention, before the output projection.

    head       y = W_o merge( σ(W_g x)_h o_h )        W_g [H × D], E = D
    element    y = W_o merge( σ(W_g x) ⊙ o )          W_g [E × D], E ≈ 0.8 D, so that the layer has about 4D² parameters

o is the read of softmax attention with rotary positions. The gate reads the layer's input x and has no bias, so it
starts near ½.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from backbones.mixers.attention.base import ProjectedAttention
from backbones.mixers.base import MixerConfig
from backbones.mixers.priors.base import head_width
from backbones.mixers.registry import register

ELEMENT_WIDTH = 0.8  # E/D of the element-wise form: 5·D·E = 4·D²


class GatedAttentionConfig(MixerConfig):
    """Options of gated attention."""

    gate: Literal["head", "element"] = Field(default="head", description="one gate per head, or per channel")


@register("gated-attention")
class GatedAttention(ProjectedAttention):
    """Softmax attention whose read is gated."""

    Config = GatedAttentionConfig
    paper = "arXiv 2505.06708"
    summary = "softmax attention with a sigmoid gate on its read"

    def __init__(self, config: GatedAttentionConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.gate_proj = nn.Linear(dim, self.gates(config, dim), bias=False)
        self.reset_parameters()

    @classmethod
    def width_of(cls, config: MixerConfig, dim: int) -> int:
        assert isinstance(config, GatedAttentionConfig)
        width = head_width(dim, config.heads, even=True)
        return width if config.gate == "head" else max(2, 2 * round(ELEMENT_WIDTH * width / 2))

    @classmethod
    def gates(cls, config: GatedAttentionConfig, dim: int) -> int:
        """The number of gates of a token."""
        return config.heads * (1 if config.gate == "head" else cls.width_of(config, dim))

    def finish(self, y_BTHd: Tensor, v_BTHd: Tensor, x_BTD: Tensor) -> Tensor:
        gates_BTHg = torch.sigmoid(self.gate_proj(x_BTD)).unflatten(-1, (self.config.heads, -1))
        return y_BTHd * gates_BTHg

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        assert isinstance(config, GatedAttentionConfig)
        return matrices + dim * cls.gates(config, dim), others
