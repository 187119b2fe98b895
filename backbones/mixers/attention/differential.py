"""Differential attention (arXiv 2410.05258): the difference of two softmax maps per pair of heads.

    A1 = softmax(q_{2h}·k_{2h}/√d),   A2 = softmax(q_{2h+1}·k_{2h+1}/√d)          H heads of d: H/2 pairs
    λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ₀,   λ₀ = 0.8 − 0.6 e^{−0.3 l}         one λ for the layer; l its index
    o_h = (1 − λ₀) RMS( (A1 − λ A2) v_h ) ⊙ gain,   y = W_o merge(o)               values and gain have 2d channels

The four vectors of d start as N(0, 0.1²). 4D² + 6d parameters; its reads cost twice those of softmax attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from backbones.mixers.attention.base import ProjectedAttention, remember
from backbones.mixers.base import Context, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import at_least_fp32, head_width
from backbones.mixers.registry import register
from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read

LAMBDA_STD = 0.1
NORM_EPS = 1e-5


@register("differential")
class DifferentialAttention(ProjectedAttention):
    """Softmax attention that subtracts a second map, which cancels what both attend to."""

    paper = "arXiv 2410.05258"
    summary = "differential attention: the difference of two softmax maps per pair of heads"
    no_weight_decay = frozenset({"lambdas"})

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.lambdas = nn.Parameter(torch.empty(4, self.width))
        self.gain = nn.Parameter(torch.empty(2 * self.width))
        self.reset_parameters()

    @classmethod
    def width_of(cls, config: MixerConfig, dim: int) -> int:
        if config.heads % 2:
            raise MixerError(f"differential attention pairs its heads: heads={config.heads} has to be even")
        return head_width(dim, config.heads, even=True)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.lambdas, std=LAMBDA_STD)
        nn.init.ones_(self.gain)

    def rotated(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.project(x_BTD, context)
        v_BTPw = v.unflatten(-1, (self.config.heads // 2, 2 * self.width))
        return rotate(self.heads(q), offset), rotate(self.heads(k), offset), v_BTPw

    def read(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        return softmax_read(q, k, v.repeat_interleave(2, dim=2), self.config.causal, context.mask_BT)

    def finish(self, y_BTHd: Tensor, v_BTHd: Tensor, x_BTD: Tensor) -> Tensor:
        y = at_least_fp32(y_BTHd).unflatten(2, (-1, 2))
        first = 0.8 - 0.6 * math.exp(-0.3 * self.layer_index)
        q1, k1, q2, k2 = at_least_fp32(self.lambdas)
        factor = (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + first
        difference = y[..., 0, :] - factor.to(y.dtype) * y[..., 1, :]
        return (1 - first) * rms_norm(difference, (2 * self.width,), self.gain.to(y.dtype), NORM_EPS)

    def init_state(self, batch: int, max_len: int) -> State:
        state, H = super().init_state(batch, max_len), self.config.heads
        state.tensors["v_BTHd"] = self.out_proj.weight.new_zeros(batch, max_len, H // 2, 2 * self.width)
        return state

    def decoded(
        self, q_B1Hd: Tensor, k_B1Hd: Tensor, v_B1Hd: Tensor, state: State, x_BD: Tensor
    ) -> tuple[Tensor, State]:
        k, v = (remember(state, *new).to(q_B1Hd.dtype) for new in (("k_BTHd", k_B1Hd), ("v_BTHd", v_B1Hd)))
        y_B1Hw = softmax_read(q_B1Hd, k, v.repeat_interleave(2, dim=2), causal=False)
        return self.merge(self.finish(y_B1Hw, v_B1Hd, x_BD[:, None]))[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        return matrices, others + 6 * cls.width_of(config, dim)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """Scores as softmax attention, reads of values twice as wide."""
        flops, numbers = super().read_cost(config, dim, length)
        return flops + flops // 2, numbers
