"""The prior `aft` (arXiv 2105.14103), with weights per value channel j: `p_t(i)_j ∝ exp(k_ij)`.

The finished read is multiplied by `RMS(softplus(q_t))`, the RMS per head, as in the code of the Free Energy Mixer's
authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from backbones.mixers.base import Capabilities, Context
from backbones.mixers.priors.base import Widths, at_least_fp32, running
from backbones.mixers.priors.channel import HIDDEN, ChannelPrior, masked
from backbones.mixers.priors.host_mixer import HostMixer
from backbones.mixers.registry import register
from kernels.channelwise import channelwise_free_energy, channelwise_read, channelwise_step
from kernels.decoding.channels import channel_layer_step
from kernels.decoding.layer import Gates
from kernels.gates import rms
from kernels.linear.exact import NOTHING


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
        q_BTE, k_BTE = (at_least_fp32(z) for z in keys)
        if context.mask_BT is not None:
            k_BTE = k_BTE.masked_fill(~context.mask_BT[..., None], HIDDEN)
        return AftWeights(q_BTE, k_BTE, context.mask_BT)

    def read(self, weights: AftWeights, v_BTHw: Tensor) -> Tensor:
        v_BTcE = self._flat(masked(weights.mask_BT, v_BTHw))
        return self._heads(self._by_direction(lambda k, v: (channelwise_read(k, v),), [], [weights.k_BTE, v_BTcE])[0])

    def free_energy(self, weights: AftWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        v_BTE = masked(weights.mask_BT, at_least_fp32(v_BTHd)).flatten(2)
        mu, F = self._by_direction(channelwise_free_energy, [], [weights.k_BTE, v_BTE], [beta_Hd.flatten()])
        return mu.view_as(v_BTHd), F.view_as(v_BTHd)

    def finish(self, weights: AftWeights, y_BTHd: Tensor) -> Tensor:
        return y_BTHd * rms(softplus(weights.q_BTE.unflatten(-1, y_BTHd.shape[2:])))

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        shape, like = (batch, self.widths.values), running(like)
        state = {"n_BE": like.new_full(shape, NOTHING), "m_BE": like.new_zeros(shape)}
        return state | {"f_BE": like.new_zeros(shape)} if free_energy else state

    def layer_step(self, x_BD: Tensor, z_BC: Tensor, state: dict[str, Tensor], gates: Gates | None) -> Tensor | None:
        return channel_layer_step(state, z_BC, self.widths.heads, gates)

    def step(
        self, weights: AftWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        v_BE = at_least_fp32(v_B1Hd).flatten(1)
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


@register("aft")
class Aft(HostMixer):
    Host = AftPrior
    capabilities = Capabilities(constant_state=True)
    version = 2  # version 1 took the RMS over all channels
    paper = "arXiv 2105.14103"
    summary = "attention-free transformer (simple), host prior: weights per channel from keys alone"
