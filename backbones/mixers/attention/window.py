"""Sliding-window attention: softmax attention in which a token sees the w tokens up to its own.

    p_t(i) ∝ exp(q_t·k_i/√d)   for t − w < i ≤ t

w is a quarter of the length unless it is given. The decoding state holds the last w tokens. There is no form that is
not causal: a position has to see the whole sequence there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor

from backbones.mixers.attention.base import ProjectedAttention
from backbones.mixers.base import Capabilities, Context, MixerConfig, State
from backbones.mixers.registry import register
from kernels.attention import softmax_read


class WindowConfig(MixerConfig):
    """Options of sliding-window attention."""

    window: int | None = Field(default=None, ge=1, description="tokens that a token sees; a quarter of the length")


@register("swa")
class WindowAttention(ProjectedAttention):
    """Softmax attention within a window."""

    Config = WindowConfig
    board_options = ("window",)
    paper = "arXiv 2004.05150"
    capabilities = Capabilities(bidirectional=False)
    summary = "sliding-window attention: softmax over the last tokens only"

    def __init__(self, config: WindowConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.window = _window(config, length)
        self.reset_parameters()

    def read(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        return softmax_read(q, k, v, self.config.causal, context.mask_BT, window=self.window)

    def hidden(self, scores_BHST: Tensor, context: Context) -> Tensor:
        t = torch.arange(scores_BHST.shape[-1], device=scores_BHST.device)
        return super().hidden(scores_BHST, context) | ((t[:, None] - t).abs() >= self.window)

    def init_state(self, batch: int, max_len: int) -> State:
        return super().init_state(batch, min(max_len, self.window))

    def slot(self, position: int) -> int:
        return position % self.window

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.width_of(config, dim)
        return [config.model_copy(update={"window": _window(config, length)})]

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """FLOPs of the naive reference: all scores; the mask is not discounted."""
        flops, _ = super().read_cost(config, dim, length)
        return flops, 2 * min(length, _window(config, length)) * config.heads * cls.width_of(config, dim)


def _window(config: MixerConfig, length: int) -> int:
    assert isinstance(config, WindowConfig)
    return config.window or max(1, length // 4)
