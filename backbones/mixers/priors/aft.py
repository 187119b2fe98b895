"""Priors whose weights differ by value channel: `aft` here, `ssm` in `priors_ssm.py`.

Both decode with a constant state; not causal, half of the channels scan forward and half from the end.
`aft` (arXiv 2105.14103): `p_t(i)_j ∝ exp(k_ij)`; the finished read is multiplied by `RMS(softplus(q_t))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from backbones.mixers.base import Capabilities, Context
from backbones.mixers.priors.base import Prior, Widths
from backbones.mixers.priors.linear import wide
from backbones.mixers.priors.softmax import HostMixer
from backbones.mixers.registry import register
from kernels.channelwise import channelwise_free_energy, channelwise_read, channelwise_step
from kernels.gates import rms
from kernels.linear.exact import NOTHING

HIDDEN = -1e9  # logarithm of the weight of padding


class ChannelPrior(Prior):
    """What both share: channels of all heads side by side, `[B, T, c, E]` for c copies of them, and their two
    directions.
    """

    grain = 1

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        self.ahead = widths.values if causal else widths.values - widths.values // 2

    def _flat(self, v_BTHw: Tensor) -> Tensor:
        copies = v_BTHw.shape[-1] // self.widths.value
        return wide(v_BTHw).unflatten(-1, (copies, self.widths.value)).transpose(2, 3).flatten(3)

    def _heads(self, v_BTcE: Tensor) -> Tensor:
        return v_BTcE.unflatten(-1, (self.widths.heads, self.widths.value)).transpose(2, 3).flatten(3)

    def _by_direction(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        shared: list[Tensor],
        by_token: list[Tensor],
        by_channel: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """`run(*shared, *by_token, *by_channel)`, on each half of the channels in its own direction where the host is
        not causal.
        shared: `[B, T, …]` without channels; by_token: `[B, T, …, E]`; by_channel: `[…, E]`."""
        if self.causal:
            return run(*shared, *by_token, *by_channel)
        first, second = slice(0, self.ahead), slice(self.ahead, None)
        ahead = run(*shared, *(x[..., first] for x in by_token), *(x[..., first] for x in by_channel))
        flipped = [x.flip(1) for x in (*shared, *(x[..., second] for x in by_token))]
        back = run(*flipped, *(x[..., second] for x in by_channel))
        return tuple(torch.cat((one, other.flip(1)), dim=-1) for one, other in zip(ahead, back, strict=True))

    def log_read(self, weights: object, u_BTHw: Tensor) -> Tensor:
        parts = u_BTHw.split(self.widths.value, dim=-1)
        return torch.cat([self.free_energy(weights, u, u.new_ones(u.shape[2:]))[1] for u in parts], dim=-1)


@dataclass(frozen=True)
class AftWeights:
    q_BTE: Tensor
    k_BTE: Tensor
    mask_BT: Tensor | None


class AftPrior(ChannelPrior):
    """`p_t(i)_j ∝ exp(k_ij)`."""

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return widths.values, widths.values

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> AftWeights:
        q_BTE, k_BTE = (wide(z) for z in keys)
        if context.mask_BT is not None:
            k_BTE = k_BTE.masked_fill(~context.mask_BT[..., None], HIDDEN)
        return AftWeights(q_BTE, k_BTE, context.mask_BT)

    def read(self, weights: AftWeights, v_BTHw: Tensor) -> Tensor:
        v_BTcE = self._flat(masked(weights.mask_BT, v_BTHw))
        return self._heads(self._by_direction(lambda k, v: (channelwise_read(k, v),), [], [weights.k_BTE, v_BTcE])[0])

    def free_energy(self, weights: AftWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        v_BTE = masked(weights.mask_BT, wide(v_BTHd)).flatten(2)
        mu, F = self._by_direction(channelwise_free_energy, [], [weights.k_BTE, v_BTE], [beta_Hd.flatten()])
        return mu.view_as(v_BTHd), F.view_as(v_BTHd)

    def finish(self, weights: AftWeights, y_BTHd: Tensor) -> Tensor:
        return y_BTHd * rms(softplus(weights.q_BTE)).unflatten(-1, y_BTHd.shape[2:])

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        shape = (batch, self.widths.values)
        state = {"n_BE": like.new_full(shape, NOTHING), "m_BE": like.new_zeros(shape)}
        return state | {"f_BE": like.new_zeros(shape)} if free_energy else state

    def step(
        self, weights: AftWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        v_BE = wide(v_B1Hd).flatten(1)
        channelwise_step(state, weights.k_BTE[:, 0], v_BE, None if beta_Hd is None else v_BE * beta_Hd.flatten())
        mu = state["m_BE"].view_as(v_B1Hd)
        return mu, None if beta_Hd is None else state["f_BE"].view_as(v_B1Hd) / beta_Hd

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """A scan of values (twice under FEM) and ones."""
        return 2 * widths.values * (3 if free_energy else 2)

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return widths.values * (3 if free_energy else 2)


def masked(mask_BT: Tensor | None, v_BTHw: Tensor) -> Tensor:
    return v_BTHw if mask_BT is None else v_BTHw.masked_fill(~mask_BT[:, :, None, None], 0.0)


@register("aft")
class Aft(HostMixer):
    Host = AftPrior
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2105.14103"
    summary = "attention-free transformer (simple), host form: weights a channel from keys alone"
