"""The Mamba-2 layer (arXiv 2405.21060): a state space with one decay per head, which reads its input.

    [z; x; B; C; Δ] = W_in u            widths V, V, N, N, H: B and C are shared by the heads
    [x; B; C] ← SiLU(conv([x; B; C]) + bias)                  4 taps per channel
    Δ ← softplus(Δ + b_Δ),   a = −exp(A_log)                  per head
    S_t = e^{Δ_t a} S_{t−1} + Δ_t x_t B_tᵀ,    y_t = S_t C_t + δ x_t           P = V/H channels per head
    out = W_out( RMS(y ⊙ SiLU(z)) ⊙ gain )                    the gate first, then one RMS over all V channels

N is 64, or 16 where D ≤ 128: there B and C would be half of the layer. V is solved for the budget. It has no
normaliser. Not causal: half of the heads run on the sequence from the end, with their convolution and with B and C of
that direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

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
from kernels.decoding.memory import memory_step
from kernels.linear.sums import decayed_sums
from kernels.short_conv import short_conv, short_conv_step

STATES, FEW_STATES, NARROW = 64, 16, 128  # N; N up to this width D
NORM_EPS = 1e-5
LARGEST_RATE = 16.0  # −a at start, log-uniform from 1


class Mamba2Config(MixerConfig):
    """Options of the Mamba-2 layer."""

    states: int | None = Field(default=None, ge=1, description="N, states per channel; 64, or 16 where D ≤ 128")
    d_v: int | None = Field(
        default=None, ge=1, description="P, channels per head; solved for the budget when not given"
    )
    convolution: bool = Field(default=True, description="short convolution of x, B and C (off: SiLU alone)")


@register("mamba2")
class Mamba2(Mixer):
    """A state space with scalar decays per head."""

    Config = Mamba2Config
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2405.21060"
    summary = "Mamba-2 layer: a state space with one decay per head that reads its input"
    no_weight_decay = frozenset({"a_log", "b_delta", "skip"})

    def __init__(self, config: Mamba2Config, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        H, self.values, self.states = config.heads, *self.widths_of(config)
        self.ahead = heads_ahead(H, config.causal)
        self.mixed = self.values + 2 * self.states  # channels of the convolution
        self.in_proj = nn.Linear(dim, self.values + self.mixed + H, bias=False)
        self.taps = nn.Parameter(torch.empty(TAPS, self.mixed)) if config.convolution else None
        self.bias = nn.Parameter(torch.empty(self.mixed)) if config.convolution else None
        self.a_log, self.b_delta, self.skip = (nn.Parameter(torch.empty(H)) for _ in range(3))
        self.gain = nn.Parameter(torch.empty(self.values))
        self.out_proj = nn.Linear(self.values, dim, bias=False)
        self.reset_parameters()

    @staticmethod
    def widths_of(config: MixerConfig) -> tuple[int, int]:
        """(V, N)."""
        assert isinstance(config, Mamba2Config)
        if config.d_v is None or config.states is None:
            raise MixerError("mamba2: its widths are not given; solve them for a budget (Mixer.size)")
        return config.heads * config.d_v, config.states

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)
        for drawn in (self.taps, self.bias):
            if drawn is not None:
                uniform_taps_(drawn)
        nn.init.uniform_(self.a_log, 0.0, math.log(LARGEST_RATE))
        log_uniform_steps_(self.b_delta, *STEP_RANGE)
        nn.init.ones_(self.skip)
        nn.init.ones_(self.gain)

    def _split(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z, the inputs of the convolution, Δ and log-decays `[…, H]` in fp32 at least."""
        z, mixed, raw = self.in_proj(u).split((self.values, self.mixed, self.config.heads), dim=-1)
        delta = softplus(at_least_fp32(raw) + self.b_delta)
        return z, mixed, delta, -delta * self.a_log.exp()

    def _convolved(self, mixed_BTc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x per head, B and C after the convolution, in fp32 at least."""
        if self.taps is not None and self.bias is not None:
            mixed_BTc = short_conv(mixed_BTc, self.taps.to(mixed_BTc.dtype), True) + self.bias.to(mixed_BTc.dtype)
        return self._parts(silu(mixed_BTc))

    def _parts(self, active_BTc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, b, c = at_least_fp32(active_BTc).split((self.values, self.states, self.states), dim=-1)
        return x.unflatten(-1, (self.config.heads, -1)), b, c

    def _read(self, part: slice, mixed: Tensor, delta: Tensor, log_decay: Tensor, mask: Tensor | None) -> Tensor:
        """y of some heads, which read from the first token given."""
        x_BTHp, b_BTN, c_BTN = self._convolved(mixed)
        x_BTHp, delta, log_decay = x_BTHp[:, :, part], delta[:, :, part], log_decay[:, :, part]
        entering = x_BTHp * delta[..., None].to(x_BTHp.dtype)
        if mask is not None:
            hidden = ~mask[..., None]
            entering, log_decay = entering.masked_fill(hidden[..., None], 0.0), log_decay.masked_fill(hidden, 0.0)
        heads = x_BTHp.shape[2]
        b_BTHN, c_BTHN = (z[:, :, None].expand(-1, -1, heads, -1) for z in (b_BTN, c_BTN))
        read = decayed_sums(c_BTHN, b_BTHN, entering, log_decay[..., None].to(x_BTHp.dtype))
        return read + self.skip[part, None].to(x_BTHp.dtype) * x_BTHp

    def _out(self, y_BTV: Tensor, z_BTV: Tensor) -> Tensor:
        gated = y_BTV * silu(at_least_fp32(z_BTV))
        return projected_out(self.out_proj, rms_norm(gated, (self.values,), self.gain.to(gated.dtype), NORM_EPS))

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        mask = context.mask_BT
        if mask is not None:  # padding is zero for the convolution
            x_BTD = x_BTD.masked_fill(~mask[..., None], 0.0)
        z, mixed, delta, log_decay = self._split(x_BTD)
        y = both_ways(self._read, self.ahead, self.config.heads, mixed, delta, log_decay, mask)
        return self._out(y.flatten(2), z)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        like, H = self.out_proj.weight, self.config.heads
        tensors = {"s_BHNp": running(like).new_zeros(batch, H, self.states, self.values // H)}
        if self.taps is not None:  # what goes into the convolution, not what comes out of it
            tensors["past_BJc"] = like.new_zeros(batch, TAPS - 1, self.mixed)
        return State(tensors)

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        z, mixed, delta, log_decay = self._split(x_BD)
        after, active = dict(state.tensors), None
        if self.taps is not None and self.bias is not None:
            active = silu_convolution_step(after["past_BJc"], mixed, self.taps, self.bias)
            if active is None:
                mixed, after["past_BJc"] = short_conv_step(mixed, after["past_BJc"], self.taps)
                mixed = mixed + self.bias.to(mixed.dtype)
        x_BHp, b_BN, c_BN = self._parts(silu(mixed) if active is None else active)
        entering = x_BHp * delta[..., None].to(x_BHp.dtype)
        b_BHN, c_BHN = (z[:, None].expand(-1, self.config.heads, -1) for z in (b_BN, c_BN))
        read, after["s_BHNp"] = memory_step(state.tensors["s_BHNp"], c_BHN, b_BHN, entering, log_decay[..., None])
        y = read + self.skip[:, None].to(x_BHp.dtype) * x_BHp
        return self._out(y.flatten(1), z), State(after, state.position + 1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        assert isinstance(config, Mamba2Config)
        sized = config.model_copy(update={"states": config.states or (FEW_STATES if dim <= NARROW else STATES)})
        widths = [config.d_v] if config.d_v else range(1, 3 * dim // config.heads + 1)
        return [sized.model_copy(update={"d_v": width}) for width in widths]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token; what enters and what reads the state, 2 per entry each."""
        assert isinstance(config, Mamba2Config)
        H, (V, N) = config.heads, cls.widths_of(config)
        matrices, channels = dim * (3 * V + 2 * N + H), V + 2 * N
        convolution = (TAPS + 1) * channels * config.convolution
        past = (TAPS - 1) * channels * config.convolution
        return Cost(
            parameters=matrices + convolution + 3 * H + V,
            flops=2 * matrices + 4 * V * N,
            state_bytes=4 * (V * N + past) if config.causal else 0,
        )
