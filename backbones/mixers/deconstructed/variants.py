"""Deconstructed attention (arXiv 2510.11602): standard attention relaxed one principle at a time, 4D² parameters each.

    no-mixing    relaxes token mixing: there is none
    taylor       relaxes the exponential: p_t(i) ∝ 1 + s + s²/2, s = q_t·k_i/√d
    query-free   relaxes the query: o_t = Σ_{i≤t} e^{l_i} v_i / Σ_{i≤t} e^{l_i}, l_i = SiLU(W_q x_i)·k_i/√d

The variants that change where q and k come from are in `split_qk.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu

from backbones.mixers.attention.base import ProjectedAttention, masked_softmax
from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.priors.base import at_least_fp32, head_width, normal_, projected_out, running
from backbones.mixers.registry import register
from backbones.mixers.rotary import angles
from kernels.decoding.running import steps_with
from kernels.decoding.taylor import taylor_step
from kernels.prefix_softmax import HIDDEN, prefix_softmax_read, prefix_softmax_step
from kernels.rows import swiglu
from kernels.taylor import LEAST_MASS, feature_count, features, ratio, taylor_read, taylor_weights, with_ones

EPS = 1e-5


@register("no-mixing")
class NoMixing(Mixer):
    """No token sees another: `W_dn( SiLU(W_gt x) ⊙ (W_up x) )`, inner width ⌊4D/3⌋. `heads` has no effect."""

    Config = MixerConfig
    capabilities = Capabilities(mixes_tokens=False, constant_state=True)
    paper = "arXiv 2510.11602"
    summary = "no token mixing: a gated MLP in place of attention"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.in_proj = nn.Linear(dim, 2 * (4 * dim // 3), bias=False)  # W_gt and W_up
        self.out_proj = nn.Linear(4 * dim // 3, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return swiglu(x_BTD, self.in_proj.weight, self.out_proj.weight)

    def init_state(self, batch: int, max_len: int) -> State:
        return State()

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        return self.forward(x_BD), State(position=state.position + 1)

    @classmethod
    def idle_options(cls, config: MixerConfig) -> Mapping[str, str]:
        return {"heads": "without mixing there are no heads"}

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        return [config]

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per weight and token."""
        parameters = 3 * dim * (4 * dim // 3)
        return Cost(parameters=parameters, flops=2 * parameters, state_bytes=0)


@register("taylor")
class Taylor(ProjectedAttention):
    """`p_t(i) ∝ 1 + s + s²/2`, rotary positions. Linear in T where T is over the number of features per head."""

    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2510.11602"
    summary = "attention with the second Taylor polynomial instead of the exponential"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, v = self.rotated(x_BTD, context)
        return self.merge(taylor_read(q, k, v, self.config.causal, context.mask_BT))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, _ = self.rotated(x_BTD, context)
        w_BHTT = taylor_weights(q.transpose(1, 2), k.transpose(1, 2), self.config.causal, context.mask_BT)
        return w_BHTT / w_BHTT.sum(-1, keepdim=True).clamp_min(LEAST_MASS)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        shape = (batch, self.config.heads, feature_count(self.width), self.width + 1)
        return State({"sums_BHFw": running(self.out_proj.weight).new_zeros(shape)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        y_BE = self._compiled_step(x_BD, state)
        if y_BE is not None:
            return projected_out(self.out_proj, y_BE), State(state.tensors, state.position + 1)
        q, k, v = (at_least_fp32(z) for z in self.rotated(x_BD[:, None], context, state.position))
        sums = state.tensors["sums_BHFw"] + features(k[:, 0])[..., None] * with_ones(v[:, 0])[..., None, :]
        y_BHd = ratio((features(q[:, 0])[..., None, :] @ sums)[..., 0, :])
        return self.merge(y_BHd[:, None])[:, 0], State({"sums_BHFw": sums}, state.position + 1)

    def _compiled_step(self, x_BD: Tensor, state: State) -> Tensor | None:
        """The read of one token `[B, D]` in one operation; None where there is none."""
        sums_BHFw, weight = state.tensors["sums_BHFw"], self.in_proj.weight
        if not steps_with((sums_BHFw,), x_BD, weight):
            return None
        return taylor_step(sums_BHFw, linear(x_BD, weight), angles(state.position, self.width, x_BD))

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """Those of the cheaper way: scores and read over T keys, or update and read of sums over F features, which are
        not counted themselves.
        """
        width = head_width(dim, config.heads, even=True)
        count = feature_count(width)
        flops = 4 * length * width if length <= count else 4 * count * (width + 1)
        return config.heads * flops, config.heads * count * (width + 1)


class QueryFreeConfig(MixerConfig):
    """Options of query-free."""

    qk_norm: bool = Field(
        default=False, description="normalise queries and keys per head (RMS with a gain), which bounds the logits"
    )


@register("query-free")
class QueryFree(ProjectedAttention):
    """Every position weights its past by the same numbers. No rotary positions: q and k of one token have the same
    position, so rotations would cancel.
    """

    Config = QueryFreeConfig
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2510.11602"
    summary = "attention whose weights ignore the query"
    config: QueryFreeConfig

    def __init__(self, config: QueryFreeConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.gain_q = nn.Parameter(torch.empty(self.width)) if config.qk_norm else None
        self.gain_k = nn.Parameter(torch.empty(self.width)) if config.qk_norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for gain in (self.gain_q, self.gain_k):
            if gain is not None:
                nn.init.ones_(gain)

    def logits(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """(logits `[B, T, H]` in fp32 at least, as they exceed 10³; v `[B, T, H, d]`)."""
        q, k, v = (self.heads(z) for z in self.project(x_BTD, context))
        dtype = torch.promote_types(q.dtype, torch.float32)
        q, k = silu(q.to(dtype)), k.to(dtype)
        if self.gain_q is not None and self.gain_k is not None:
            q, k = (rms_norm(z, (self.width,), gain.to(dtype), EPS) for z, gain in ((q, self.gain_q), (k, self.gain_k)))
        return (q * k).sum(-1) * self.width**-0.5, v

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        logits_BTH, v_BTHd = self.logits(x_BTD, context)
        return self.merge(prefix_softmax_read(logits_BTH, v_BTHd, self.config.causal, context.mask_BT))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        logits_BTH, _ = self.logits(x_BTD, context)
        T = x_BTD.shape[1]
        return masked_softmax(
            logits_BTH.transpose(1, 2)[:, :, None].expand(-1, -1, T, -1), self.config.causal, context.mask_BT
        )

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        like, shape = running(self.out_proj.weight), (batch, self.config.heads)
        mass_BH = like.new_full(shape, HIDDEN, dtype=torch.float64)
        return State({"mass_BH": mass_BH, "y_BHd": like.new_zeros(*shape, self.width)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        logits_B1H, v_B1Hd = self.logits(x_BD[:, None], context)
        mass_BH, y_BHd = prefix_softmax_step(
            logits_B1H[:, 0], at_least_fp32(v_B1Hd[:, 0]), state.tensors["mass_BH"], state.tensors["y_BHd"]
        )
        return self.merge(y_BHd[:, None])[:, 0], State({"mass_BH": mass_BH, "y_BHd": y_BHd}, state.position + 1)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        normed = isinstance(config, QueryFreeConfig) and config.qk_norm
        return matrices, others + (2 * head_width(dim, config.heads, even=True) if normed else 0)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """Logits 2·D; the scan, a decay and an input per channel, 4·D. A mass in fp64 counts as two numbers."""
        return 6 * dim, dim + 2 * config.heads
