"""The softmax prior, and softmax attention: the mixer that every budget refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from backbones.mixers.base import Context, MixerConfig
from backbones.mixers.priors.base import Prior, Widths, head_width
from backbones.mixers.priors.host_mixer import HostMixer
from backbones.mixers.registry import register
from backbones.mixers.rotary import rotate_all, turn
from kernels.attention import softmax_read
from kernels.free_energy import free_energy_read


@dataclass(frozen=True)
class SoftmaxWeights:
    """Queries and keys before their rotation, and the position of the first."""

    q_BTHk: Tensor
    k_BTHk: Tensor
    mask_BT: Tensor | None
    offset: int = 0

    def rotated(self) -> tuple[Tensor, Tensor]:
        q_BTHk, k_BTHk = rotate_all((self.q_BTHk, self.k_BTHk), self.offset)
        return q_BTHk, k_BTHk


class SoftmaxPrior(Prior):
    """`p_t(i) ∝ exp(q_t·k_i/√k)`, rotary positions."""

    constant_state = False

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return widths.heads * widths.key, widths.heads * widths.key

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> SoftmaxWeights:
        q_BTHk, k_BTHk = (z.unflatten(-1, (self.widths.heads, self.widths.key)) for z in keys)
        return SoftmaxWeights(q_BTHk, k_BTHk, context.mask_BT, offset)

    def read(self, weights: SoftmaxWeights, v_BTHw: Tensor) -> Tensor:
        at_once = turn(weights.q_BTHk, weights.offset)
        q_BTHk, k_BTHk = weights.rotated() if at_once is None else (weights.q_BTHk, weights.k_BTHk)
        return softmax_read(q_BTHk, k_BTHk, v_BTHw, self.causal, weights.mask_BT, turn=at_once)

    def log_read(self, weights: SoftmaxWeights, u_BTHw: Tensor) -> Tensor:
        return self.free_energy(weights, u_BTHw, u_BTHw.new_ones(u_BTHw.shape[2:]))[1]

    def free_energy(self, weights: SoftmaxWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        return free_energy_read(*weights.rotated(), v_BTHd, beta_Hd, self.causal, weights.mask_BT)

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        w = self.widths
        return {
            "k_BTHk": like.new_zeros(batch, max_len, w.heads, w.key),
            "v_BTHd": like.new_zeros(batch, max_len, w.heads, w.value),
        }

    def step(
        self, weights: SoftmaxWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        q_B1Hk, k_B1Hk = weights.rotated()
        state["k_BTHk"][:, position] = k_B1Hk[:, 0]
        state["v_BTHd"][:, position] = v_B1Hd[:, 0]
        k, v = (state[name][:, : position + 1].to(v_B1Hd.dtype) for name in ("k_BTHk", "v_BTHd"))
        if beta_Hd is None:
            return softmax_read(q_B1Hk, k, v, causal=False), None
        return free_energy_read(q_B1Hk, k, v, beta_Hd, causal=False)

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """Scores 2·T·k per head, each read 2·T·d per head; exponentials and normalisation are not counted."""
        return 2 * length * widths.heads * (widths.key + (2 if free_energy else 1) * widths.value)

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return length * widths.heads * (widths.key + widths.value)


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
