"""Attention with other queries: the nonlinear query (arXiv 2603.13381), its two controls, and QK-norm (2302.05442).

    nonlinear-query         q = ½( x + LN( GELU( RMS(x) W₁ ) W₂ ) )      W₁ [D × D/2], W₂ [D/2 × D]
    linear-residual-query   the same without the GELU
    identity-query          q = ½ x                                       D² fewer parameters, which go to the FFN
    qk-norm                 q, k = RMS per head of W_q x, W_k x           with a gain per channel, shared by the heads

Keys and values are W_k x and W_v x; scores are scaled by 1/√d; RMS and LN have gains and no biases; heads are split
after the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, rms_norm

from backbones.mixers.attention.base import Attention, ProjectedAttention
from backbones.mixers.base import Capabilities, Context, MixerConfig
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import head_width
from backbones.mixers.registry import register

EPS = 1e-5


class QueryAttention(Attention):
    """Attention whose queries come from `query` instead of a D × D matrix."""

    paper = "arXiv 2603.13381"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.kv_proj = nn.Linear(dim, 2 * dim, bias=False)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        k, v = self.kv_proj(x_BTD).chunk(2, dim=-1)
        return self.query(x_BTD).to(k.dtype), k, v

    def query(self, x_BTD: Tensor) -> Tensor:
        """q `[B, T, D]`, before it is split into heads."""
        raise NotImplementedError

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        return 2 * dim * dim, 0


@register("identity-query")
class IdentityQuery(QueryAttention):
    """q = x/2. It costs D² less than the reference, which goes to the FFN: it is matched on the total only."""

    capabilities = Capabilities(pays_in_ffn=True)
    summary = "the query is the input itself: control of nonlinear-query, matched through the FFN"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()

    def query(self, x_BTD: Tensor) -> Tensor:
        return 0.5 * x_BTD


@register("nonlinear-query")
class NonlinearQuery(QueryAttention):
    """q = ½( x + LN( GELU( RMS(x) W₁ ) W₂ ) )."""

    summary = "softmax attention with a nonlinear residual query"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        if dim % 2:
            raise MixerError(f"the query's inner width is D/2: the width {dim} has to be even")
        self.query_in, self.query_out = (
            nn.Parameter(torch.empty(dim // 2, dim)),
            nn.Parameter(torch.empty(dim, dim // 2)),
        )
        self.gain_in, self.gain_out = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for weight in (self.query_in, self.query_out):
            nn.init.normal_(weight, std=0.02)
        for gain in (self.gain_in, self.gain_out):
            nn.init.ones_(gain)

    def query(self, x_BTD: Tensor) -> Tensor:
        D = x_BTD.shape[-1]
        inner = self.activation(linear(rms_norm(x_BTD, (D,), self.gain_in.to(x_BTD.dtype), EPS), self.query_in))
        return 0.5 * (x_BTD + layer_norm(linear(inner, self.query_out), (D,), self.gain_out, None, EPS))

    def activation(self, z: Tensor) -> Tensor:
        return gelu(z)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        return 3 * dim * dim, 2 * dim


@register("linear-residual-query")
class LinearResidualQuery(NonlinearQuery):
    """The control without the nonlinearity (LN stays): its gain is that of the residual query alone."""

    summary = "nonlinear-query without its GELU: the control for the residual query"

    def activation(self, z: Tensor) -> Tensor:
        return z


@register("qk-norm")
class QKNorm(ProjectedAttention):
    """Softmax attention with queries and keys normalised per head, so that √d times the gains bounds the logits."""

    paper = "arXiv 2302.05442"
    summary = "softmax attention with normalised queries and keys"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.gain_q, self.gain_k = nn.Parameter(torch.empty(self.width)), nn.Parameter(torch.empty(self.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for gain in (self.gain_q, self.gain_k):
            nn.init.ones_(gain)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x_BTD, context)
        return self._normal(q, self.gain_q), self._normal(k, self.gain_k), v

    def _normal(self, z_BTD: Tensor, gain_d: Tensor) -> Tensor:
        return rms_norm(self.heads(z_BTD), (self.width,), gain_d.to(z_BTD.dtype), EPS).flatten(2)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        return 3 * dim * dim, 2 * head_width(dim, config.heads, even=True)
