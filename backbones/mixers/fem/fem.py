"""FEM, the Free Energy Mixer (arXiv 2602.07160), over any prior:

    q,k,v = (W x)(1+c)    λ = sigmoid((W_λ x)(1+c))    g = RMS_head(softplus((W_g x)(1+c)))
    β = softplus(w_β), per channel
    μ = read(v)           F = log_read(βv)/β           y = W_o( g ⊙ [(1−λ) ⊙ μ + λ ⊙ F] )

c is the low-rank convolution (`convolution.py`), different for each projection. What a switch turns off has no
parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from backbones.mixers.base import Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.fem.convolution import LowRankConvolution, rank_of
from backbones.mixers.priors.base import Prior, Widths, at_least_fp32, normal_, prior_map, projected_out, running
from backbones.mixers.priors.softmax import SoftmaxPrior
from backbones.mixers.registry import register
from kernels.decoding.layer import Gates
from kernels.decoding.running import steps_with
from kernels.gates import gated_mix, rms
from kernels.projection import modulated_projection

BETA_START = 1.8  # initial w_β


class FemConfig(MixerConfig):
    """Switches and widths of FEM. Without `lse` there is nothing to mix, so λ is left out too."""

    convolution: bool = Field(default=True, description="C: low-rank convolution of all projections (off: c = 0)")
    lse: bool = Field(default=True, description="L: free energy in addition to the mean (off: F = μ)")
    temperature: bool = Field(default=True, description="T: inner gate λ (off: λ = 1)")
    gates: bool = Field(default=True, description="G: outer gate (off: g = 1)")
    d_v: int | None = Field(
        default=None, ge=1, description="value width per head; solved for the budget when not given"
    )


class KeyedFemConfig(FemConfig):
    """FEM over a host whose query/key width is chosen independently."""

    d_k: int | None = Field(
        default=None, ge=2, multiple_of=2, description="query/key width per head; solved when not given"
    )


class Fem(Mixer):
    """FEM over the prior `Host`, which subclasses set."""

    Config: ClassVar[type[FemConfig]] = FemConfig
    Host: ClassVar[type[Prior]]
    version = 2  # version 1: eps 1e-3 in the convolution's LayerNorm(h); AFT's query factor over all channels
    paper = "arXiv 2602.07160"
    config: FemConfig

    @classmethod
    def idle_options(cls, config: MixerConfig) -> Mapping[str, str]:
        mixes = not isinstance(config, FemConfig) or config.lse
        return {} if mixes else {"temperature": "without the free energy (lse=false) there is nothing to mix"}

    def __init__(self, config: FemConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.widths = widths = self.widths_of(config, dim)
        self.splits = self.projections(config, widths)
        self.in_proj = nn.Linear(dim, sum(self.splits), bias=False)
        self.out_proj = nn.Linear(widths.values, dim, bias=False)
        self.prior = self.Host(widths, config.causal)
        self.w_beta = nn.Parameter(torch.empty(widths.heads, widths.value)) if config.lse else None
        self.convolution = (
            LowRankConvolution(dim, rank_of(widths.values), sum(self.splits), config.causal)
            if config.convolution
            else None
        )
        self.reset_parameters()

    @classmethod
    def widths_of(cls, config: FemConfig, dim: int) -> Widths:
        d_k = config.d_k if isinstance(config, KeyedFemConfig) else 0
        if config.d_v is None or d_k is None:
            raise MixerError(
                "fem: its widths are not given; solve them for a budget (Mixer.size), or set d_v and, where there "
                "is one, d_k"
            )
        return Widths(dim, config.heads, d_k, config.d_v)

    @classmethod
    def projections(cls, config: FemConfig, widths: Widths) -> list[int]:
        """Widths of the projections of x: the host's keys, v, λ, g; 0 for what is off."""
        E = widths.values
        return [*cls.Host.projected(widths), E, E * _mixes(config), E * config.gates]

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)
        self.prior.reset_parameters()
        if self.w_beta is not None:
            nn.init.constant_(self.w_beta, BETA_START)
        if self.convolution is not None:
            self.convolution.reset_parameters()

    def _project(self, x: Tensor, factors: Tensor | None) -> tuple[Tensor, ...]:
        p_RC = None if self.convolution is None else self.convolution.out_proj
        return modulated_projection(x, self.in_proj.weight, self.splits, factors, p_RC)

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.unflatten(-1, (self.widths.heads, self.widths.value))

    def _mix(self, mu: Tensor, F: Tensor | None, inner: Tensor, outer: Tensor) -> Tensor:
        if F is not None and _mixes(self.config) and self.config.gates:
            return gated_mix(mu, F, self._heads(inner), self._heads(outer))
        y = mu
        if F is not None:
            y = torch.lerp(mu, F, self._heads(inner).sigmoid().to(F.dtype)) if _mixes(self.config) else F
        return y * rms(softplus(self._heads(outer))) if self.config.gates else y

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        factors = None if self.convolution is None else self.convolution.factors(x_BTD, context.mask_BT)
        *keys, v_BTE, inner, outer = self._project(x_BTD, factors)
        weights = self.prior.prepare(x_BTD, keys, context)
        v_BTHd, beta_Hd = self._heads(v_BTE), self._beta()
        if beta_Hd is None:
            mu, F = self.prior.read(weights, v_BTHd), None
        else:
            mu, F = self.prior.free_energy(weights, v_BTHd, beta_Hd)
        y_BTHd = self.prior.finish(weights, self._mix(mu, F, inner, outer))
        return projected_out(self.out_proj, y_BTHd.flatten(2))

    def _beta(self) -> Tensor | None:
        """β `[H, d]`, in fp32 at least."""
        return None if self.w_beta is None else softplus(at_least_fp32(self.w_beta))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The prior's weights `[B, H, T, T]`, for inspection; the free energy's posterior differs by channel."""
        factors = None if self.convolution is None else self.convolution.factors(x_BTD, context.mask_BT)
        *keys, _, _, _ = self._project(x_BTD, factors)
        return prior_map(self.prior, self.prior.prepare(x_BTD, keys, context), x_BTD)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        like = self.out_proj.weight
        tensors = self.prior.init_state(batch, max_len, like, self.config.lse)
        if self.convolution is not None:
            tensors["h_BR"] = running(like).new_zeros(batch, self.convolution.rank)
        return State(tensors)

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        factors = None
        if self.convolution is not None:
            factors, state.tensors["h_BR"] = self.convolution.step(x_BD, state.tensors["h_BR"])
        y_BE = self._compiled_step(x_BD, factors, state, context)
        if y_BE is not None:
            return projected_out(self.out_proj, y_BE), State(state.tensors, state.position + 1)
        factors = None if factors is None else factors[:, None]
        x_B1D = x_BD[:, None]
        *keys, v, inner, outer = self._project(x_B1D, factors)
        weights = self.prior.prepare(x_B1D, keys, context, offset=state.position)
        mu, F = self.prior.step(weights, self._heads(v), state.tensors, state.position, self._beta())
        y_B1Hd = self.prior.finish(weights, self._mix(mu, F, inner, outer))
        return projected_out(self.out_proj, y_B1Hd.flatten(2))[:, 0], State(state.tensors, state.position + 1)

    def _compiled_step(self, x_BD: Tensor, factors: Tensor | None, state: State, context: Context) -> Tensor | None:
        """`[B, E]`, what the output projection reads, in one operation; None where there is none."""
        weight, beta_Hd = self.in_proj.weight, self.w_beta
        fused = self.prior.fused_step and _mixes(self.config) and self.config.gates and context.mask_BT is None
        if not fused or beta_Hd is None or not steps_with((), x_BD, weight, beta_Hd):
            return None
        gates = Gates(factors, None if self.convolution is None else self.convolution.out_proj, softplus(beta_Hd))
        return self.prior.layer_step(x_BD, linear(x_BD, weight), state.tensors, gates)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        """Value widths per head, widest first. Keys, if any, are near the paper's r = 4, `d_k = 2 d_v`, where the
        one-pass read of the softmax host costs one attention. Steps of 4 (8 from D = 256 on), or of the host's grain.
        """
        assert isinstance(config, FemConfig)
        scale = 1 if dim < 256 else 2
        grain, step = cls.Host.grain * scale, 4 * scale
        for d_v in (
            [config.d_v] if config.d_v else range(max(4 * dim // config.heads // grain * grain, grain), 0, -grain)
        ):
            sized = config.model_copy(update={"d_v": d_v})
            if not isinstance(config, KeyedFemConfig) or config.d_k:
                yield sized
                continue
            for offset in sorted({0, -grain, grain, -step, step}, key=abs):
                if 2 * d_v + offset > 0:
                    yield sized.model_copy(update={"d_k": 2 * d_v + offset})

    @classmethod
    def cost(cls, config: FemConfig, dim: int, length: int) -> Cost:  # type: ignore[override]
        """FLOPs: projections, the convolution's (3RD in, R per projected channel out, scan R), and the host's reads."""
        widths, projected = cls.widths_of(config, dim), sum(cls.projections(config, cls.widths_of(config, dim)))
        rank = rank_of(widths.values) if config.convolution else 0
        linears = dim * (projected + widths.values) + LowRankConvolution.parameters_of(dim, rank, projected)
        return Cost(
            parameters=linears + cls.Host.parameters_of(widths) + widths.values * config.lse,
            flops=2 * (linears + rank) + cls.Host.flops(widths, length, config.lse),
            state_bytes=4 * (cls.Host.state_numbers(widths, length, config.lse) + rank) if config.causal else 0,
        )


def _mixes(config: FemConfig) -> bool:
    """Whether there is an inner gate: it mixes μ and F, so it needs both."""
    return config.temperature and config.lse


@register("fem")
class FemSoftmax(Fem):
    """FEM over softmax."""

    Config = KeyedFemConfig
    Host = SoftmaxPrior
    summary = "Free Energy Mixer over softmax attention"
