"""Differential attention (arXiv 2410.05258): the difference of two softmax maps per pair of heads.

    A1 = softmax(q_{2h}·k_{2h}/√d),   A2 = softmax(q_{2h+1}·k_{2h+1}/√d)          H heads of d: H/2 pairs
    λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ₀,   λ₀ = 0.8 − 0.6 e^{−0.3 l}         one λ for the layer; l its index
    o_h = (1 − λ₀) RMS( (A1 − λ A2) v_h ) ⊙ gain,   y = W_o merge(o)               values and gain have 2d channels

The four vectors of d start as N(0, 0.1²). 4D² + 6d parameters; its reads cost twice those of softmax attention.

The variant `v2` is the authors' second version (microsoft/unilm, Diff-Transformer V2):

    o_h = A_{2h} v − σ(W_λ x)_h A_{2h+1} v,   y = W_o merge(o)       2H query heads of d: H pairs, W_λ [H × D]

Four query heads share one of H/2 heads of keys and values, so both maps of a pair read the same ones. It has no norm
and no λ₀, so its place in the backbone does not matter. 4D² + HD parameters and half of the decoding state; its maps
cost twice those of softmax attention.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
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


class DifferentialConfig(MixerConfig):
    """Options of differential attention."""

    variant: Literal["v1", "v2"] = Field(
        default="v1",
        description="v1: one weight λ per layer, and a norm; v2: one λ per head that reads the input, shared keys",
        json_schema_extra={"introduced_with": "v1"},
    )


class Heads(NamedTuple):
    """How many heads of queries, keys and values there are, and the channels of a value as multiples of d."""

    queries: int
    keys: int
    values: int
    value_width: int


@register("differential")
class DifferentialAttention(ProjectedAttention):
    """Softmax attention that subtracts a second map, which cancels what both attend to."""

    Config = DifferentialConfig
    paper = "arXiv 2410.05258"
    summary = "differential attention: the difference of two softmax maps per pair of heads"
    no_weight_decay = frozenset({"lambdas"})

    def __init__(self, config: DifferentialConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.counts = self.heads_of(config)
        first = config.variant == "v1"
        self.lambdas = nn.Parameter(torch.empty(4, self.width)) if first else None
        self.gain = nn.Parameter(torch.empty(2 * self.width)) if first else None
        self.lambda_proj = None if first else nn.Linear(dim, config.heads, bias=False)
        self.reset_parameters()

    @classmethod
    def width_of(cls, config: MixerConfig, dim: int) -> int:
        if config.heads % 2:
            raise MixerError(f"differential attention pairs its heads: heads={config.heads} has to be even")
        return head_width(dim, config.heads, even=True)

    @staticmethod
    def heads_of(config: MixerConfig) -> Heads:
        """The heads of the variant; 3H·d channels in all, as W_q, W_k and W_v have."""
        assert isinstance(config, DifferentialConfig)
        H = config.heads
        return Heads(H, H, H // 2, 2) if config.variant == "v1" else Heads(2 * H, H // 2, H // 2, 1)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.lambdas is not None and self.gain is not None:
            nn.init.normal_(self.lambdas, std=LAMBDA_STD)
            nn.init.ones_(self.gain)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        n = self.counts
        widths = [heads * self.width for heads in (n.queries, n.keys, n.values * n.value_width)]
        q, k, v = self.in_proj(x_BTD).split(widths, dim=-1)
        return q, k, v

    def kept(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v as the decoding state keeps them, before heads share keys or values."""
        q, k, v = self.project(x_BTD, context)
        q, k = (z.unflatten(-1, (-1, self.width)) for z in (q, k))
        return rotate(q, offset), rotate(k, offset), v.unflatten(-1, (self.counts.values, -1))

    def shared(self, k_BTHd: Tensor, v_BTHw: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, once per head of queries."""
        n = self.counts
        k = k_BTHd if n.keys == n.queries else k_BTHd.repeat_interleave(n.queries // n.keys, dim=2)
        return k, v_BTHw.repeat_interleave(n.queries // n.values, dim=2)

    def rotated(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.kept(x_BTD, context, offset)
        return q, *self.shared(k, v)

    def finish(self, y_BTHd: Tensor, v_BTHd: Tensor, x_BTD: Tensor) -> Tensor:
        y = at_least_fp32(y_BTHd).unflatten(2, (-1, 2))
        if self.lambda_proj is not None:
            factors_BTH = torch.sigmoid(at_least_fp32(self.lambda_proj(x_BTD)))
            return y[..., 0, :] - factors_BTH[..., None].to(y.dtype) * y[..., 1, :]
        assert self.lambdas is not None
        assert self.gain is not None
        first = 0.8 - 0.6 * math.exp(-0.3 * self.layer_index)
        q1, k1, q2, k2 = at_least_fp32(self.lambdas)
        factor = (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + first
        difference = y[..., 0, :] - factor.to(y.dtype) * y[..., 1, :]
        return (1 - first) * rms_norm(difference, (2 * self.width,), self.gain.to(y.dtype), NORM_EPS)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        n, like = self.counts, self.out_proj.weight
        shapes = {"k_BTHd": (n.keys, self.width), "v_BTHd": (n.values, n.value_width * self.width)}
        return State({name: like.new_zeros(batch, max_len, *shape) for name, shape in shapes.items()})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        q, k, v = self.kept(x_BD[:, None], context, state.position)
        ks, vs = (remember(state, name, new).to(q.dtype) for name, new in (("k_BTHd", k), ("v_BTHd", v)))
        y_B1Hw = softmax_read(q, *self.shared(ks, vs), causal=False)
        return self.merge(self.finish(y_B1Hw, v, x_BD[:, None]))[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        assert isinstance(config, DifferentialConfig)
        matrices, others = super().project_parameters(config, dim)
        if config.variant == "v2":
            return matrices + dim * config.heads, others
        return matrices, others + 6 * cls.width_of(config, dim)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """Scores and reads of every head of queries; the state keeps each head of keys and values once."""
        n, width = cls.heads_of(config), cls.width_of(config, dim)
        flops = 2 * length * n.queries * width * (1 + n.value_width)
        return flops, length * width * (n.keys + n.values * n.value_width)
