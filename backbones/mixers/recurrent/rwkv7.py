"""The time mixing of RWKV-7 (arXiv 2503.14456): a memory that removes under one key and stores under another.

    x_z = x_t + μ_z ⊙ (x_{t−1} − x_t) for z of r, w, k, v, a, g;      r, k, v = W_r x_r, W_k x_k, W_v x_v
    log w = −e^{−1/2} σ(w₀ + W₂ tanh(W₁ x_w)),      a = σ(a₀ + A₂ A₁ x_a),      g = G₂ σ(G₁ x_g)
    κ = k ⊙ k_k, normalised per head;      k ← k ⊙ (1 + (a − 1) ⊙ k_a)
    S_t = diag(w_t) S_{t−1} − (κ_t ⊙ a_t) (S_{t−1}ᵀ κ_t)ᵀ + k_t v_tᵀ,      o_t = S_tᵀ r_t
    y = W_o( ( norm_head(o) + Σ_head(r ⊙ k ⊙ r_k) v ) ⊙ g )            layer norm with gain and bias, eps 1e-5·D/H

K = D, V is solved for the budget, and the ranks of W, A and G are max(4, D/16): the official ones, 32 and more, are
most of a narrow layer. Without the value residual, which reads the first layer's v. Initial values are the official
ones of a first layer (W_o, W₁, A₁ and G₁ are zero); other matrices are drawn as everywhere in the suite.

The memory is that of `kernels.linear.channel_delta` with two steps per token: one decays and removes, one stores. The
former reads under κ/w, because that kernel decays before it reads; w is at least e^{−.61}. Not causal: half of the
heads run on the sequence from the end, and their x_{t−1} is the token after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, normalize, pad

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import at_least_fp32, head_width, normal_, projected_out, running
from backbones.mixers.recurrent.directions import both_ways, heads_ahead
from backbones.mixers.registry import register
from kernels.decoding.rwkv import Parameters, Projections, compiled_rwkv_step
from kernels.linear.channel_delta import channel_delta_rule

LARGEST_DECAY = math.exp(-0.5)  # of −log w
NORM_EPS, UNIT_EPS = 1e-5, 1e-12
LEAST_RANK, RANK_OF_WIDTH = 4, 16
EVERY = slice(None)  # head
#: 1 − μ of channel c at start is (c/D) to this power, for r, w, k, v, a and g.
POWERS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)


class Rwkv7Config(MixerConfig):
    """Options of RWKV-7's time mixing."""

    d_v: int | None = Field(default=None, ge=1, description="value width per head; solved when not given")
    rank: int | None = Field(default=None, ge=1, description="of the maps to w, a and g; max(4, D/16) when not given")


class Projected(NamedTuple):
    """What the tokens give some heads `[…, H, ·]`: κ is `removed`, κ ⊙ a `removing`."""

    r: Tensor
    k: Tensor
    v: Tensor
    log_w: Tensor
    removed: Tensor
    removing: Tensor
    g: Tensor


@register("rwkv7")
class Rwkv7(Mixer):
    """A memory with a decay per channel, which removes under one key and stores under another."""

    Config = Rwkv7Config
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2503.14456"
    summary = "RWKV-7 time mixing, without the value residual: a memory that removes and stores under two keys"
    no_weight_decay = frozenset({"mu", "w_start", "a_start"})
    config: Rwkv7Config

    def __init__(self, config: Rwkv7Config, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        H, (self.values, rank) = config.heads, self.widths_of(config)
        self.key, self.value = head_width(dim, H), self.values // H
        self.ahead = heads_ahead(H, config.causal)
        self.mu = nn.Parameter(torch.empty(len(POWERS), dim))
        self.w_r, self.w_k = (nn.Parameter(torch.empty(dim, dim)) for _ in range(2))
        self.w_v = nn.Parameter(torch.empty(self.values, dim))
        self.w_down, self.a_down, self.g_down = (nn.Parameter(torch.empty(rank, dim)) for _ in range(3))
        self.w_up, self.a_up = (nn.Parameter(torch.empty(dim, rank)) for _ in range(2))
        self.g_up = nn.Parameter(torch.empty(self.values, rank))
        self.w_start, self.a_start, self.k_k, self.k_a, self.r_k = (nn.Parameter(torch.empty(dim)) for _ in range(5))
        self.gain, self.bias = (nn.Parameter(torch.empty(self.values)) for _ in range(2))
        self.out_proj = nn.Linear(self.values, dim, bias=False)
        self.reset_parameters()

    @staticmethod
    def widths_of(config: MixerConfig) -> tuple[int, int]:
        """(V, rank)."""
        assert isinstance(config, Rwkv7Config)
        if config.d_v is None or config.rank is None:
            raise MixerError("rwkv7: its widths are not given; solve them for a budget (Mixer.size)")
        return config.heads * config.d_v, config.rank

    def reset_parameters(self) -> None:
        for drawn in (self.w_r, self.w_k, self.w_v, self.w_up, self.a_up, self.g_up):
            normal_(drawn)
        for zero in (self.w_down, self.a_down, self.g_down, self.out_proj.weight, self.bias):
            nn.init.zeros_(zero)
        channel, D, d = torch.arange(self.dim, dtype=torch.float64), self.dim, self.key
        along = channel / max(1, D - 1)  # 0 to 1 over all channels
        in_head = (channel % d) / max(1, d - 1) * 2 - 1  # −1 to 1 over those of a head
        bend = in_head * in_head.abs()
        with torch.no_grad():
            self.mu.copy_(1 - (channel / D) ** torch.tensor(POWERS, dtype=torch.float64)[:, None])
            self.w_start.copy_(-5.5 + 6 * along + 2.5 * bend)
            self.a_start.copy_(-0.19 + 0.3 * bend + 0.4 * (along - 0.5))
            self.k_k.copy_(0.71 - 0.1 * (along - 0.5))
        for fixed, start in ((self.k_a, 1.02), (self.r_k, -0.04), (self.gain, 1.0)):
            nn.init.constant_(fixed, start)

    def _mixed(self, x: Tensor, before: Tensor) -> Iterable[Tensor]:
        """x_r, x_w, x_k, x_v, x_a and x_g of tokens and those before them."""
        step = before - x
        return (x + step * mu for mu in self.mu.to(x.dtype))

    def _maps(self, inputs: Iterable[Tensor], part: slice) -> Projections:
        """What x_r, x_w, x_k, x_v, x_a and x_g `[…, D]` give some heads, in fp32 at least."""
        x_r, x_w, x_k, x_v, x_a, x_g = inputs

        def heads(x: Tensor, weight: Tensor) -> Tensor:
            some = weight if part == EVERY else self._own(weight, part).flatten(0, 1)
            return at_least_fp32(linear(x, some.to(x.dtype)))

        r, k, v = heads(x_r, self.w_r), heads(x_k, self.w_k), heads(x_v, self.w_v)
        inner_w, inner_a, inner_g = (
            linear(x, weight.to(x.dtype)) for x, weight in ((x_w, self.w_down), (x_a, self.a_down), (x_g, self.g_down))
        )
        w, a, g = heads(inner_w.tanh(), self.w_up), heads(inner_a, self.a_up), heads(inner_g.sigmoid(), self.g_up)
        return Projections(r, k, v, w, a, g)

    def _own(self, parameter: Tensor, part: slice) -> Tensor:
        """The part of a parameter that belongs to some heads, by head."""
        return parameter.unflatten(0, (self.config.heads, -1))[part]

    def _project(self, maps: Projections, part: slice) -> Projected:
        """By head."""
        w_start, a_start, k_k, k_a = (self._own(z, part) for z in (self.w_start, self.a_start, self.k_k, self.k_a))
        r, k, v, w, a, g = (z.unflatten(-1, (len(w_start), -1)) for z in maps.tensors())
        log_w = -LARGEST_DECAY * (w_start + w).sigmoid()
        a = (a_start + a).sigmoid()
        removed = normalize(k * k_k, dim=-1, eps=UNIT_EPS)
        k = k * (1 + (a - 1) * k_a)
        return Projected(r, k, v, log_w, removed, removed * a, g)

    def _finish(self, o: Tensor, given: Projected, part: slice) -> Tensor:
        """The normed answers and each token's own value, gated."""
        gain, bias, r_k = (self._own(z, part) for z in (self.gain, self.bias, self.r_k))
        normed = layer_norm(o, (self.value,), eps=NORM_EPS * self.key) * gain + bias
        return (normed + (given.r * given.k * r_k).sum(-1, keepdim=True) * given.v) * given.g

    def _read(self, part: slice, x_BTD: Tensor) -> Tensor:
        """Outputs of some heads, which read from the first token given."""
        mixed = self._mixed(x_BTD, pad(x_BTD, (0, 0, 1, 0))[:, : x_BTD.shape[1]])
        given = self._project(self._maps(mixed, part), part)
        return self._finish(memory_read(given), given, part)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        if context.mask_BT is not None:  # padding stores nothing, and is a zero for the token after it
            x_BTD = x_BTD.masked_fill(~context.mask_BT[..., None], 0.0)
        y = both_ways(self._read, self.ahead, self.config.heads, x_BTD)
        return projected_out(self.out_proj, y.flatten(2))

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        like = self.out_proj.weight
        memory = running(like).new_zeros(batch, self.config.heads, self.key, self.value)
        return State({"s_BHkw": memory, "before_BD": like.new_zeros(batch, self.dim)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        before, memory = state.tensors["before_BD"], state.tensors["s_BHkw"]
        mixed_6BD = torch.addcmul(x_BD, before.to(x_BD.dtype) - x_BD, self.mu.to(x_BD.dtype)[:, None])
        maps = self._maps(mixed_6BD, EVERY)
        y_BV = compiled_rwkv_step(memory, maps, self._layer())
        if y_BV is None:
            given = self._project(maps, EVERY)
            o, memory = stepped(memory, given)
            y_BV = self._finish(o, given, EVERY).flatten(1)
        after = {"s_BHkw": memory, "before_BD": x_BD.to(before.dtype)}
        return projected_out(self.out_proj, y_BV), State(after, state.position + 1)

    def _layer(self) -> Parameters:
        """What the compiled step reads."""
        keys = (self.w_start, self.a_start, self.k_k, self.k_a, self.r_k)
        return Parameters(LARGEST_DECAY, UNIT_EPS, NORM_EPS * self.key, *keys, self.gain, self.bias)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        assert isinstance(config, Rwkv7Config)
        head_width(dim, config.heads)
        ranked = config.model_copy(update={"rank": config.rank or max(LEAST_RANK, dim // RANK_OF_WIDTH)})
        widths = [config.d_v] if config.d_v else range(1, 2 * dim // config.heads + 1)
        return [ranked.model_copy(update={"d_v": width}) for width in widths]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token; reading the memory twice and writing to it twice, 2 per entry each. Not
        causal: W₁, A₁ and G₁ once per direction.
        """
        V, rank = cls.widths_of(config)
        down, memory = 3 * rank * dim, dim * (V // config.heads)
        matrices = 2 * dim * dim + 2 * dim * V + down + rank * (2 * dim + V)
        return Cost(
            parameters=matrices + (len(POWERS) + 5) * dim + 2 * V,
            flops=2 * (matrices + down * (not config.causal)) + 8 * memory,
            state_bytes=4 * (memory + dim) if config.causal else 0,
        )


def stepped(memory_BHkw: Tensor, given: Projected) -> tuple[Tensor, Tensor]:
    """One token by PyTorch.

    Args:
        memory_BHkw: S before the token.
        given: the token's.

    Returns:
        o `[B, H, w]`, and S after the token in its dtype.
    """
    s_BHkw = memory_BHkw.to(given.r.dtype)
    found_BH1w = given.removed[:, :, None] @ s_BHkw
    s_BHkw = s_BHkw * given.log_w.exp()[..., None] - given.removing[..., None] * found_BH1w
    s_BHkw = s_BHkw + given.k[..., None] * given.v[:, :, None]
    return (given.r[:, :, None] @ s_BHkw)[:, :, 0], s_BHkw.to(memory_BHkw.dtype)


def memory_read(given: Projected) -> Tensor:
    """The memory's answers o, from an empty one.

    Args:
        given: of all tokens, `[B, T, H, ·]`.

    Returns:
        `[B, T, H, w]`.
    """
    none_k, none_v = torch.zeros_like(given.r), torch.zeros_like(given.v)

    def in_turn(removes: Tensor, stores: Tensor) -> Tensor:
        return torch.stack((removes, stores), dim=2).flatten(1, 2)

    o = channel_delta_rule(
        in_turn(none_k, given.r),
        in_turn(given.removing, given.k),
        in_turn(none_v, given.v),
        given.r.new_ones(given.r.shape[0], 2 * given.r.shape[1], given.r.shape[2]),
        in_turn(given.log_w, none_k),
        in_turn(given.removed * (-given.log_w).exp(), none_k),
    )
    return o[:, 1::2]
