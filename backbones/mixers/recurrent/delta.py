"""DeltaNet (arXiv 2406.06484) and Gated DeltaNet (2412.06464): a linear memory that corrects what it holds.

    q, k, v = SiLU(conv(W_q x)), SiLU(conv(W_k x)), SiLU(conv(W_v x))           4 taps, causal, no bias
    q, k ← z / ‖z‖ per head,      β = σ(W_b x) per head,      o: the (gated) delta rule, over √d_k

    deltanet          α = 1;                                          y = W_o merge( RMS_head(o) ⊙ gain )
    gated-deltanet    log α = −exp(A_log) softplus(W_a x + b_Δ);      y = W_o merge( RMS_head(o) ⊙ gain ⊙ SiLU(W_z x) )

With `negative`, β = 2σ: the memory's transitions get negative eigenvalues (arXiv 2411.12537). Keys are as wide as
values in deltanet and half as wide in gated-deltanet; both are solved for the budget. Not causal: half of the heads run
on the sequence from the end, their convolution included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu, softplus

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import (
    TAPS,
    at_least_fp32,
    log_uniform_steps_,
    normal_,
    projected_out,
    running,
    uniform_taps_,
)
from backbones.mixers.priors.ssm import STEP_RANGE
from backbones.mixers.recurrent.directions import both_ways, heads_ahead
from backbones.mixers.registry import register
from kernels.decoding.convolutions import silu_convolution_step
from kernels.decoding.memory import Around, compiled_memory_step, memory_step
from kernels.linear.delta import delta_rule
from kernels.short_conv import short_conv, short_conv_step

UNIT_EPS, NORM_EPS = 1e-6, 1e-5
LEAST_RATE, LARGEST_RATE = 1e-2, 16.0  # exp(A_log) at start, uniform


class DeltaConfig(MixerConfig):
    """Options of both layers."""

    d_k: int | None = Field(default=None, ge=1, description="key width per head; solved for the budget when not given")
    d_v: int | None = Field(default=None, ge=1, description="value width per head; solved when not given")
    negative: bool = Field(default=False, description="β from 0 to 2, so that a correction can turn a value's sign")
    convolution: bool = Field(default=True, description="short convolution of queries, keys and values")


class DeltaLayer(Mixer):
    """What the layers of the delta rule share; a subclass draws its parameters when all of them are there."""

    Config = DeltaConfig
    capabilities = Capabilities(constant_state=True)
    no_weight_decay = frozenset({"a_log", "b_delta"})
    config: DeltaConfig
    gated: ClassVar[bool] = False  # whether the memory decays and the output has a gate
    gate: ClassVar[Literal["silu", "sigmoid"]] = "silu"  # of the output
    narrower_keys: ClassVar[int] = 1  # V/K

    def __init__(self, config: DeltaConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        H, (self.keys, self.values) = config.heads, self.widths_of(config)
        self.ahead = heads_ahead(H, config.causal)
        self.mixed = 2 * self.keys + self.values  # channels of the convolution
        self.splits = (self.mixed, H, *self.gates_of(config))
        self.in_proj = nn.Linear(dim, sum(self.splits), bias=False)
        self.taps = nn.Parameter(torch.empty(TAPS, self.mixed)) if config.convolution else None
        self.a_log = nn.Parameter(torch.empty(H)) if self.gated else None
        self.b_delta = nn.Parameter(torch.empty(self.decays_of(config))) if self.gated else None
        self.gain = nn.Parameter(torch.empty(self.values // H))
        self.out_proj = nn.Linear(self.values, dim, bias=False)

    @staticmethod
    def widths_of(config: MixerConfig) -> tuple[int, int]:
        """(K, V), of all heads."""
        assert isinstance(config, DeltaConfig)
        if config.d_k is None or config.d_v is None:
            raise MixerError("its widths d_k and d_v are not given; set them, or solve them for a budget (Mixer.size)")
        return config.heads * config.d_k, config.heads * config.d_v

    @classmethod
    def gates_of(cls, config: DeltaConfig) -> tuple[int, int]:
        """Channels of the input's projection for the decays and for the output's gate."""
        return config.heads * cls.gated, cls.widths_of(config)[1] * cls.gated

    @classmethod
    def decays_of(cls, config: DeltaConfig) -> int:
        """How many decays there are per token, where the memory decays."""
        return config.heads

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)
        nn.init.ones_(self.gain)
        if self.taps is not None:
            uniform_taps_(self.taps)
        if self.a_log is not None and self.b_delta is not None:
            with torch.no_grad():
                self.a_log.uniform_(LEAST_RATE, LARGEST_RATE).log_()
            log_uniform_steps_(self.b_delta, *STEP_RANGE)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Inputs of the convolution, β `[…, H]` and log α in fp32 at least, and z."""
        mixed, rate, step, z = self.in_proj(x).split(self.splits, dim=-1)
        beta = at_least_fp32(rate).sigmoid() * (2 if self.config.negative else 1)
        return mixed, beta, self._log_decay(step) if self.gated else None, z

    def _log_decay(self, step: Tensor) -> Tensor:
        """log α `[…, H]`, or per key channel `[…, H, k]`."""
        assert self.a_log is not None
        assert self.b_delta is not None
        return -self.a_log.exp() * softplus(at_least_fp32(step) + self.b_delta)

    def _heads(self, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k of norm 1, and v `[…, H, ·]`, from the output of the convolution and SiLU."""
        parts = at_least_fp32(active).split((self.keys, self.keys, self.values), dim=-1)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in parts)
        q, k = (z * torch.rsqrt(z.square().sum(-1, keepdim=True) + UNIT_EPS) for z in (q, k))
        return q * (self.keys // self.config.heads) ** -0.5, k, v

    def _read(self, part: slice, mixed: Tensor, beta: Tensor, log_decay: Tensor | None) -> Tensor:
        """o of some heads, which read from the first token given."""
        if self.taps is not None:
            mixed = short_conv(mixed, self.taps.to(mixed.dtype), True)
        q, k, v = (z[:, :, part] for z in self._heads(silu(mixed)))
        decay = None if log_decay is None else log_decay[:, :, part].to(q.dtype)
        return self._rule(q, k, v, beta[:, :, part].to(q.dtype), decay)

    def _rule(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None) -> Tensor:
        """o of all tokens."""
        return delta_rule(q, k, v, beta, log_decay)

    def _rule_step(
        self, memory: Tensor, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """o of one token, and the memory after it."""
        return memory_step(memory, q, k, v, None if log_decay is None else log_decay[..., None], beta)

    def _gate_logits(self, z: Tensor) -> Tensor:
        """What the output's gate is a function of, `gate`."""
        return z

    def _gate(self, z: Tensor) -> Tensor:
        """The factor of the output."""
        logits = at_least_fp32(self._gate_logits(z))
        return silu(logits) if self.gate == "silu" else logits.sigmoid()

    def _out(self, o: Tensor, z: Tensor) -> Tensor:
        y = rms_norm(o, (o.shape[-1],), self.gain.to(o.dtype), NORM_EPS).flatten(-2)
        return projected_out(self.out_proj, y * self._gate(z) if self.gated else y)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        hidden = None if context.mask_BT is None else ~context.mask_BT[..., None]
        mixed, beta, log_decay, z = self._project(x_BTD if hidden is None else x_BTD.masked_fill(hidden, 0.0))
        if hidden is not None:  # nothing is corrected, and nothing decays
            beta = beta.masked_fill(hidden, 0.0)
            if log_decay is not None:
                log_decay = log_decay.masked_fill(hidden.unflatten(-1, (1,) * (log_decay.dim() - 2)), 0.0)
        o = both_ways(self._read, self.ahead, self.config.heads, mixed, beta, log_decay)
        return self._out(o, z)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        like, H = self.out_proj.weight, self.config.heads
        tensors = {"s_BHkw": running(like).new_zeros(batch, H, self.keys // H, self.values // H)}
        if self.taps is not None:  # what goes into the convolution, not what comes out of it
            tensors["past_BJc"] = like.new_zeros(batch, TAPS - 1, self.mixed)
        return State(tensors)

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        mixed, beta, log_decay, z = self._project(x_BD)
        after, active = dict(state.tensors), None
        if self.taps is not None:
            active = silu_convolution_step(after["past_BJc"], mixed, self.taps, None)
            if active is None:
                mixed, after["past_BJc"] = short_conv_step(mixed, after["past_BJc"], self.taps)
        active = silu(mixed) if active is None else active
        y_BV = self._compiled_step(active, after["s_BHkw"], beta, log_decay, z)
        if y_BV is not None:
            return projected_out(self.out_proj, y_BV), State(after, state.position + 1)
        q, k, v = self._heads(active)
        o, after["s_BHkw"] = self._rule_step(state.tensors["s_BHkw"], q, k, v, beta, log_decay)
        return self._out(o, z), State(after, state.position + 1)

    def _compiled_step(
        self, active_Bc: Tensor, memory_BHkw: Tensor, beta_BH: Tensor, log_decay: Tensor | None, z: Tensor
    ) -> Tensor | None:
        """What the output projection reads `[B, V]`, in one operation; None without the compiled library."""
        around = Around(
            unit=UNIT_EPS,
            scale=memory_BHkw.shape[2] ** -0.5,
            gate_BE=self._gate_logits(z) if self.gated else None,
            gain=self.gain,
            norm="rms",
            gated=self.gate if self.gated else "",
            eps=NORM_EPS,
        )
        parts = active_Bc.split((self.keys, self.keys, self.values), dim=-1)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in parts)
        decay_BHc = None if log_decay is None else log_decay.flatten(1).unflatten(1, (self.config.heads, -1))
        y_BHw = compiled_memory_step(memory_BHkw, q, k, v, decay_BHc, beta_BH, around)
        return None if y_BHw is None else y_BHw.flatten(1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        """Values in steps of a channel per head; keys as wide, or about half as wide where the layer is gated."""
        assert isinstance(config, DeltaConfig)
        spread = (0, -1, 1) if cls.narrower_keys > 1 else (0,)
        for d_v in [config.d_v] if config.d_v else range(1, 2 * dim // config.heads + 1):
            near = max(1, round(d_v / cls.narrower_keys))
            for d_k in [config.d_k] if config.d_k else [near + offset for offset in spread if near + offset > 0]:
                yield config.model_copy(update={"d_k": d_k, "d_v": d_v})

    @classmethod
    def own_parameters(cls, config: DeltaConfig) -> tuple[int, int]:
        """What a subclass has more: entries of matrices, and of vectors."""
        return 0, 0

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token; reading the memory for the error and for the output, and correcting it:
        2 per entry each.
        """
        assert isinstance(config, DeltaConfig)
        H, (K, V) = config.heads, cls.widths_of(config)
        more, vectors = cls.own_parameters(config)
        matrices = dim * (2 * K + 2 * V + H + sum(cls.gates_of(config))) + more
        channels, memory = (2 * K + V) * config.convolution, K * (V // H)
        return Cost(
            parameters=matrices + TAPS * channels + V // H + (H + cls.decays_of(config)) * cls.gated + vectors,
            flops=2 * matrices + 6 * memory,
            state_bytes=4 * (memory + (TAPS - 1) * channels) if config.causal else 0,
        )


@register("deltanet")
class DeltaNet(DeltaLayer):
    """The delta rule without decay."""

    paper = "arXiv 2406.06484"
    summary = "DeltaNet: a linear memory that corrects what it holds under a key"

    def __init__(self, config: DeltaConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()


@register("gated-deltanet")
class GatedDeltaNet(DeltaLayer):
    """The delta rule with a decay per head, and a gate on its output."""

    paper = "arXiv 2412.06464"
    summary = "Gated DeltaNet: the delta rule with a decay per head and a gated output"
    gated = True
    narrower_keys = 2

    def __init__(self, config: DeltaConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()
