"""The softmax prior, and a prior as a mixer of its own (a "host form": positive weights that sum to 1, `y =
W_o·merge(read(v))`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones.mixers.base import Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.priors.base import Prior, Widths, head_width, normal_, prior_map
from backbones.mixers.registry import register
from backbones.mixers.rotary import rotate_all
from kernels.attention import softmax_read
from kernels.free_energy import free_energy_read
from kernels.projection import modulated_projection


@dataclass(frozen=True)
class SoftmaxWeights:
    q_BTHk: Tensor
    k_BTHk: Tensor
    mask_BT: Tensor | None


class SoftmaxPrior(Prior):
    """`p_t(i) ∝ exp(q_t·k_i/√k)`, rotary positions."""

    constant_state = False

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return widths.heads * widths.key, widths.heads * widths.key

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> SoftmaxWeights:
        q_BTHk, k_BTHk = rotate_all(tuple(z.unflatten(-1, (self.widths.heads, self.widths.key)) for z in keys), offset)
        return SoftmaxWeights(q_BTHk, k_BTHk, context.mask_BT)

    def read(self, weights: SoftmaxWeights, v_BTHw: Tensor) -> Tensor:
        return softmax_read(weights.q_BTHk, weights.k_BTHk, v_BTHw, self.causal, weights.mask_BT)

    def log_read(self, weights: SoftmaxWeights, u_BTHw: Tensor) -> Tensor:
        return self.free_energy(weights, u_BTHw, u_BTHw.new_ones(u_BTHw.shape[2:]))[1]

    def free_energy(self, weights: SoftmaxWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        return free_energy_read(weights.q_BTHk, weights.k_BTHk, v_BTHd, beta_Hd, self.causal, weights.mask_BT)

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        w = self.widths
        return {
            "k_BTHk": like.new_zeros(batch, max_len, w.heads, w.key),
            "v_BTHd": like.new_zeros(batch, max_len, w.heads, w.value),
        }

    def step(
        self, weights: SoftmaxWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        state["k_BTHk"][:, position] = weights.k_BTHk[:, 0]
        state["v_BTHd"][:, position] = v_B1Hd[:, 0]
        k, v = (state[name][:, : position + 1].to(v_B1Hd.dtype) for name in ("k_BTHk", "v_BTHd"))
        if beta_Hd is None:
            return softmax_read(weights.q_BTHk, k, v, causal=False), None
        return free_energy_read(weights.q_BTHk, k, v, beta_Hd, causal=False)

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """Scores 2·T·k a head, each read 2·T·d a head; exponentials and normalisation are not counted."""
        return 2 * length * widths.heads * (widths.key + (2 if free_energy else 1) * widths.value)

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return length * widths.heads * (widths.key + widths.value)


class HostMixer(Mixer):
    """`y = W_o · merge(read(W_v x))` over the prior `Host`, with E = D."""

    Config = MixerConfig
    Host: ClassVar[type[Prior]]
    board_note = "host form"  # positive and normalised weights: not the full layer of the same name

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.widths = self.widths_of(config, dim)
        self.splits = (*self.Host.projected(self.widths), self.widths.values)
        self.in_proj = nn.Linear(dim, sum(self.splits), bias=False)
        self.out_proj = nn.Linear(self.widths.values, dim, bias=False)
        self.prior = self.Host(self.widths, config.causal)
        self.reset_parameters()

    @classmethod
    def widths_of(cls, config: MixerConfig, dim: int) -> Widths:
        width = head_width(dim, config.heads)
        return Widths(dim, config.heads, width, width)

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)
        self.prior.reset_parameters()

    def _project(self, x_BTD: Tensor) -> tuple[list[Tensor], Tensor]:
        *keys, v_BTE = modulated_projection(x_BTD, self.in_proj.weight, self.splits)
        return keys, v_BTE.unflatten(-1, (self.widths.heads, self.widths.value))

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        keys, v_BTHd = self._project(x_BTD)
        weights = self.prior.prepare(x_BTD, keys, context)
        return self.out_proj(self.prior.finish(weights, self.prior.read(weights, v_BTHd)).flatten(2))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The prior's weights `[B, H, T, T]`, for looking at."""
        keys, _ = self._project(x_BTD)
        return prior_map(self.prior, self.prior.prepare(x_BTD, keys, context), x_BTD)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        return State(self.prior.init_state(batch, max_len, self.out_proj.weight, free_energy=False))

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        keys, v_B1Hd = self._project(x_BD[:, None])
        weights = self.prior.prepare(x_BD[:, None], keys, context, offset=state.position)
        y_B1Hd, _ = self.prior.step(weights, v_B1Hd, state.tensors, state.position, None)
        y_BD = self.out_proj(self.prior.finish(weights, y_B1Hd).flatten(2))[:, 0]
        return y_BD, State(state.tensors, state.position + 1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.widths_of(config, dim)
        return [config]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """Projections at 2 FLOPs a weight and token, and the host's reads (`Prior.flops`)."""
        widths = cls.widths_of(config, dim)
        projections = dim * (sum(cls.Host.projected(widths)) + 2 * widths.values)
        return Cost(
            parameters=projections + cls.Host.parameters_of(widths),
            flops=2 * projections + cls.Host.flops(widths, length, free_energy=False),
            state_bytes=4 * cls.Host.state_numbers(widths, length, free_energy=False) if config.causal else 0,
        )


@register("softmax")
class Softmax(HostMixer):
    """Softmax attention with rotary positions; 4D² parameters: the reference of every budget."""

    Host = SoftmaxPrior
    board_note = ""
    paper = "arXiv 1706.03762"
    summary = "softmax attention, rotary positions: the reference"

    @classmethod
    def widths_of(cls, config: MixerConfig, dim: int) -> Widths:
        width = head_width(dim, config.heads, even=True)
        return Widths(dim, config.heads, width, width)
