"""The layers of GLA (arXiv 2312.06635, §4.4) and RetNet (2307.08621, §2): a linear memory with decay, normed and gated.

    q, k = W_q x, W_k x  [K],      v = W_v x  [V],      r = W_r x  [V],      K = V/2 at the papers' sizes
    S_t = diag(α_t) S_{t−1} + k_t v_tᵀ,      o_t = S_tᵀ q_t / √d_k,      y = W_o( SiLU(r) ⊙ norm_head(o) )

    gla-layer    α = σ(W₂ W₁ x + b)^{1/16}, one per key channel, through 16 channels;   layer norm with a gain
    retnet       α = 1 − 2^{−5−h}, fixed, one per head; rotary q and k;                 layer norm without

The published layers, without the positive features and the normaliser of the host priors `gla` and `retention`. Both
norms make RetNet's own normalisers of q·k and of rows superfluous. The bias of r is left out, as in all projections
here. V is solved for the budget. Not causal: half of the heads read from the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, logsigmoid, silu

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import at_least_fp32, normal_, projected_out, running
from backbones.mixers.priors.decays import fixed_log_decays
from backbones.mixers.recurrent.directions import both_ways, heads_ahead
from backbones.mixers.registry import register
from backbones.mixers.rotary import angles, rotate_all
from kernels.decoding.memory import Around, compiled_memory_step, memory_step
from kernels.decoding.running import steps_with
from kernels.linear.sums import decayed_sums

GATE_RANK, GATE_POWER = 16, 16.0  # of GLA's decays
NORM_EPS = 1e-5


class GatedLinearConfig(MixerConfig):
    """Options of both layers."""

    d_k: int | None = Field(default=None, ge=1, description="key width per head; solved for the budget when not given")
    d_v: int | None = Field(default=None, ge=1, description="value width per head; solved when not given")


class GatedLinear(Mixer):
    """What both layers share; a subclass gives the decays."""

    Config = GatedLinearConfig
    capabilities = Capabilities(constant_state=True)
    config: GatedLinearConfig

    def __init__(self, config: GatedLinearConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.keys, self.values = self.widths_of(config)
        self.ahead = heads_ahead(config.heads, config.causal)
        self.in_proj = nn.Linear(dim, 2 * self.keys + 2 * self.values, bias=False)
        self.out_proj = nn.Linear(self.values, dim, bias=False)

    @staticmethod
    def widths_of(config: MixerConfig) -> tuple[int, int]:
        """(K, V), of all heads."""
        assert isinstance(config, GatedLinearConfig)
        if config.d_k is None or config.d_v is None:
            raise MixerError("its widths d_k and d_v are not given; set them, or solve them for a budget (Mixer.size)")
        return config.heads * config.d_k, config.heads * config.d_v

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        """Logarithms of α `[B, T, H, 1]` or `[B, T, H, d_k]`, in fp32 at least."""
        raise NotImplementedError

    def turned(self, q: Tensor, k: Tensor, offset: int) -> tuple[Tensor, ...]:
        """q and k at their positions, the first token's being `offset`."""
        return q, k

    def gain_or_none(self) -> Tensor | None:
        """Of the norm, `[V/H]`."""
        return None

    def _project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v `[B, T, H, ·]` in fp32 at least, and r `[B, T, V]`."""
        q, k, v, r = self.in_proj(x_BTD).split((self.keys, self.keys, self.values, self.values), dim=-1)
        q, k, v = (at_least_fp32(z).unflatten(-1, (self.config.heads, -1)) for z in (q, k, v))
        return q * q.shape[-1] ** -0.5, k, v, r

    def _read(self, part: slice, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
        """o of some heads, which read from the first token given."""
        q, k = self.turned(q[:, :, part], k[:, :, part], 0)
        return decayed_sums(q, k, v[:, :, part], log_decay[:, :, part].to(q.dtype))

    def _out(self, o_BTHw: Tensor, r_BTV: Tensor) -> Tensor:
        gain = self.gain_or_none()
        weight = None if gain is None else gain.to(o_BTHw.dtype)
        normed = layer_norm(o_BTHw, (o_BTHw.shape[-1],), weight, eps=NORM_EPS).flatten(-2)
        return projected_out(self.out_proj, silu(at_least_fp32(r_BTV)) * normed)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, v, r = self._project(x_BTD)
        log_decay = self.log_decay(x_BTD)
        if context.mask_BT is not None:  # nothing is stored, and nothing decays
            hidden = ~context.mask_BT[..., None, None]
            k, log_decay = k.masked_fill(hidden, 0.0), log_decay.masked_fill(hidden, 0.0)
        return self._out(both_ways(self._read, self.ahead, self.config.heads, q, k, v, log_decay), r)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        H = self.config.heads
        shape = (batch, H, self.keys // H, self.values // H)
        return State({"s_BHkw": running(self.out_proj.weight).new_zeros(shape)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        y_BE = self._compiled_step(x_BD, state)
        if y_BE is not None:
            return projected_out(self.out_proj, y_BE), State(state.tensors, state.position + 1)
        q, k, v, r = self._project(x_BD[:, None])
        q, k = self.turned(q, k, state.position)
        log_decay = self.log_decay(x_BD[:, None])
        o_BHw, s_BHkw = memory_step(state.tensors["s_BHkw"], q[:, 0], k[:, 0], v[:, 0], log_decay[:, 0])
        return self._out(o_BHw[:, None], r)[:, 0], State({"s_BHkw": s_BHkw}, state.position + 1)

    def turn_at(self, position: int, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines `[d_k/2]` of the angles by which `turned` rotates; None where it does not."""
        return None

    def _compiled_step(self, x_BD: Tensor, state: State) -> Tensor | None:
        """What the output projection reads `[B, V]`, in one operation; None without the compiled library."""
        memory_BHkw = state.tensors["s_BHkw"]
        if not steps_with((memory_BHkw,), x_BD, self.in_proj.weight):
            return None
        heads, widths = (self.config.heads, -1), (self.keys, self.keys, self.values, self.values)
        *token, r_BV = linear(x_BD, self.in_proj.weight).split(widths, dim=-1)
        q, k, v = (z.unflatten(-1, heads) for z in token)
        around = Around(
            scale=memory_BHkw.shape[2] ** -0.5,
            turn=self.turn_at(state.position, x_BD),
            gate_BE=r_BV,
            gain=self.gain_or_none(),
            norm="layer",
            gated="silu",
            eps=NORM_EPS,
        )
        y_BHw = compiled_memory_step(memory_BHkw, q, k, v, self.log_decay(x_BD[:, None])[:, 0], None, around)
        return None if y_BHw is None else y_BHw.flatten(1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        """Values in steps of a channel per head, keys half as wide (rounded up to an even number)."""
        assert isinstance(config, GatedLinearConfig)
        for d_v in [config.d_v] if config.d_v else range(1, 2 * dim // config.heads + 1):
            d_k = config.d_k or max(2, -(-d_v // 4) * 2)
            yield config.model_copy(update={"d_k": d_k, "d_v": d_v})

    @classmethod
    def cost_of_decays(cls, dim: int, keys: int) -> tuple[int, int]:
        """(parameters, entries of matrices among them)."""
        raise NotImplementedError

    @classmethod
    def norm_parameters(cls, width: int) -> int:
        """Of the norm of a head with that many values."""
        return 0

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token; what enters and what reads the memory, 2 per entry each."""
        H, (K, V) = config.heads, cls.widths_of(config)
        decays, decay_matrices = cls.cost_of_decays(dim, K)
        matrices, memory = dim * (2 * K + 3 * V), K * (V // H)
        return Cost(
            parameters=matrices + decays + cls.norm_parameters(V // H),
            flops=2 * (matrices + decay_matrices) + 4 * memory,
            state_bytes=4 * memory if config.causal else 0,
        )


@register("gla-layer")
class GlaLayer(GatedLinear):
    """Gated linear attention as published: a decay per key channel."""

    paper = "arXiv 2312.06635"
    summary = "the layer of gated linear attention: decays per key channel, norm and output gate"
    no_weight_decay = frozenset({"b_decay"})

    def __init__(self, config: GatedLinearConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.w_down = nn.Parameter(torch.empty(GATE_RANK, dim))
        self.w_up = nn.Parameter(torch.empty(self.keys, GATE_RANK))
        self.b_decay = nn.Parameter(torch.empty(self.keys))
        self.gain = nn.Parameter(torch.empty(self.values // config.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        normal_(self.w_down)
        normal_(self.w_up)
        nn.init.zeros_(self.b_decay)
        nn.init.ones_(self.gain)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        z = at_least_fp32(x_BTD @ self.w_down.to(x_BTD.dtype).T @ self.w_up.to(x_BTD.dtype).T) + self.b_decay
        return (logsigmoid(z) / GATE_POWER).unflatten(-1, (self.config.heads, -1))

    def gain_or_none(self) -> Tensor | None:
        return self.gain

    @classmethod
    def cost_of_decays(cls, dim: int, keys: int) -> tuple[int, int]:
        matrices = GATE_RANK * (dim + keys)
        return matrices + keys, matrices

    @classmethod
    def norm_parameters(cls, width: int) -> int:
        return width


@register("retnet")
class RetNet(GatedLinear):
    """Multi-scale retention as published: a fixed decay per head, rotary positions."""

    paper = "arXiv 2307.08621"
    summary = "the layer of RetNet: fixed decays, rotary positions, norm and output gate"

    def __init__(self, config: GatedLinearConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()

    @staticmethod
    def widths_of(config: MixerConfig) -> tuple[int, int]:
        K, V = GatedLinear.widths_of(config)
        if K // config.heads % 2:
            raise MixerError(f"d_k={K // config.heads} is odd, and pairs of key channels rotate; give an even d_k")
        return K, V

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        H = self.config.heads
        return fixed_log_decays(H, H, at_least_fp32(x_BTD))[:, None].expand(*x_BTD.shape[:2], H, 1)

    def turned(self, q: Tensor, k: Tensor, offset: int) -> tuple[Tensor, ...]:
        return rotate_all((q, k), offset)

    def turn_at(self, position: int, like: Tensor) -> tuple[Tensor, Tensor]:
        return angles(position, self.keys // self.config.heads, like)

    @classmethod
    def cost_of_decays(cls, dim: int, keys: int) -> tuple[int, int]:
        return 0, 0
