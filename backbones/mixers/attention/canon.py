"""Canon layers (arXiv 2512.17351): softmax attention with short convolutions before and after its projections.

    A      u = x + conv(x)                           D channels
    B      [q; k; v] = W u + conv(W u)               3D channels, before heads and positions
    conv(z)_t = Σ_{j=0..3} w_j ⊙ z_{t−j}             no bias, no activation; not causal: equal taps on both sides

The residual is always there, and the taps start uniform in ±½ (PyTorch's `Conv1d` for four of them). It is the control
for mixers that carry a convolution. A and B together are 4D² + 16D parameters, more than 5 % above softmax where
D < 80: B alone from D = 60 on, else A.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from backbones.mixers.attention.base import ProjectedAttention
from backbones.mixers.base import Context, MixerConfig, State
from backbones.mixers.priors.base import TAPS, uniform_taps_
from backbones.mixers.registry import register
from backbones.mixers.residual_convolution import residual_convolution, residual_convolution_step, without_padding
from backbones.mixers.rotary import rotate

LEAST_FOR_BOTH, LEAST_FOR_B = 80, 60  # D from which the taps cost at most 5 % of 4D²


class CanonConfig(MixerConfig):
    """Options of softmax attention with Canon layers."""

    places: Literal["AB", "A", "B"] | None = Field(
        default=None, description="convolutions before (A) and after (B) the projections; AB where the budget allows"
    )


@register("canon")
class CanonAttention(ProjectedAttention):
    """Softmax attention with short convolutions."""

    Config = CanonConfig
    board_options = ("places",)
    paper = "arXiv 2512.17351"
    summary = "softmax attention with short convolutions before and after its projections"

    def __init__(self, config: CanonConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        places = config.places or ""
        self.taps_a = nn.Parameter(torch.empty(TAPS, dim)) if "A" in places else None
        self.taps_b = nn.Parameter(torch.empty(TAPS, 3 * dim)) if "B" in places else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for taps in (self.taps_a, self.taps_b):
            if taps is not None:
                uniform_taps_(taps)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        u_BTD = self._convolved(without_padding(x_BTD, context.mask_BT), self.taps_a)
        if self.taps_a is not None and not self.config.causal:  # taps ahead reach from padding into the tokens
            u_BTD = without_padding(u_BTD, context.mask_BT)
        q, k, v = self._convolved(self.in_proj(u_BTD), self.taps_b).chunk(3, dim=-1)
        return q, k, v

    def _convolved(self, z_BTc: Tensor, taps: Tensor | None) -> Tensor:
        return z_BTc if taps is None else residual_convolution(z_BTc, taps, self.config.causal)

    def init_state(self, batch: int, max_len: int) -> State:
        state = super().init_state(batch, max_len)
        for name, taps in (("a_BJD", self.taps_a), ("b_BJE", self.taps_b)):
            if taps is not None:  # what goes into the convolution, not what comes out of it
                state.tensors[name] = self.out_proj.weight.new_zeros(batch, TAPS - 1, taps.shape[1])
        return state

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        u_BD = _convolved_token(x_BD, self.taps_a, state, "a_BJD")
        q, k, v = _convolved_token(self.in_proj(u_BD), self.taps_b, state, "b_BJE")[:, None].chunk(3, dim=-1)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)
        return self.decoded(rotate(q, state.position), rotate(k, state.position), v, state, x_BD)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.width_of(config, dim)
        assert isinstance(config, CanonConfig)
        largest = "AB" if dim >= LEAST_FOR_BOTH else "B" if dim >= LEAST_FOR_B else "A"
        return [config if config.places else config.model_copy(update={"places": largest})]

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        return matrices, others + TAPS * cls._channels(config, dim)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        flops, numbers = super().read_cost(config, dim, length)
        return flops, numbers + (TAPS - 1) * cls._channels(config, dim)

    @staticmethod
    def _channels(config: MixerConfig, dim: int) -> int:
        """Channels of the convolutions."""
        assert isinstance(config, CanonConfig)
        places = config.places or ""
        return dim * (("A" in places) + 3 * ("B" in places))


def _convolved_token(z_Bc: Tensor, taps_Jc: Tensor | None, state: State, name: str) -> Tensor:
    """One token after the convolution, which sees the last inputs of the state and puts this one there."""
    if taps_Jc is None:
        return z_Bc
    y_Bc, state.tensors[name] = residual_convolution_step(z_Bc, state.tensors[name], taps_Jc)
    return y_Bc
