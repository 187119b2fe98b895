"""The prior `ssm`: a selective diagonal state space (arXiv 2312.00752) whose weights are divided by their sum.

s_t = exp(Δ_t A) s_{t−1} + Δ_t B_t v_t,    y_t = C_t·s_t + δ v_t,    divided by the same recurrence run on ones
Δ = softplus(W_2 W_1 x + b) of rank D/16,    B = softplus(W_B x),    C = softplus(W_C x),    N = 16 states per channel
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, softplus, threshold

from backbones.mixers.base import Capabilities, Context, MixerConfig
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import Widths, at_least_fp32, log_uniform_steps_, normal_, running
from backbones.mixers.priors.channel import HIDDEN, ChannelPrior, masked
from backbones.mixers.priors.host_mixer import HostMixer
from backbones.mixers.registry import register
from kernels.decoding.channels import AXES, Selection, selective_layer_step
from kernels.decoding.layer import Gates, to_logarithms
from kernels.selective import exact
from kernels.selective.free_energy import selective_free_energy, selective_read

STATES = 16  # N
SKIP_START = -2.0  # initial w; δ = softplus(w)
STEP_RANGE = (1e-3, 1e-1)  # of the initial Δ, log-uniform


@dataclass(frozen=True)
class SsmWeights:
    """Logarithms of Δ `[B, T, E]`, B and C `[B, T, N]`; padding has Δ = 0."""

    log_delta: Tensor
    log_b: Tensor
    log_c: Tensor
    mask_BT: Tensor | None


class SsmPrior(ChannelPrior):
    """`p_t(i)_j ∝ Σ_n C_tn exp(Σ_{i<s≤t} Δ_sj A_nj) Δ_ij B_in + δ_j [i = t]`."""

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        D, E, rank = widths.dim, widths.values, _rank(widths.dim)
        self.w_down = nn.Parameter(torch.empty(rank, D))
        self.w_up = nn.Parameter(torch.empty(E, rank))
        self.bias = nn.Parameter(torch.empty(E))
        self.w_states = nn.Parameter(torch.empty(2 * STATES, D))  # W_B and W_C
        self.a_log = nn.Parameter(torch.empty(STATES, E))
        self.w_skip = nn.Parameter(torch.empty(E))

    def reset_parameters(self) -> None:
        for weight in (self.w_down, self.w_up, self.w_states):
            normal_(weight)
        log_uniform_steps_(self.bias, *STEP_RANGE)
        with torch.no_grad():
            self.a_log.copy_(torch.arange(1, STATES + 1).log()[:, None].expand_as(self.a_log))
            self.w_skip.fill_(SKIP_START)

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return ()

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> SsmWeights:
        log_delta = log_softplus(at_least_fp32(linear(linear(x_BTD, self.w_down), self.w_up)) + self.bias)
        log_b, log_c = log_softplus(at_least_fp32(linear(x_BTD, self.w_states))).chunk(2, dim=-1)
        if context.mask_BT is not None:
            log_delta = log_delta.masked_fill(~context.mask_BT[..., None], HIDDEN)
        return SsmWeights(log_delta, log_b, log_c, context.mask_BT)

    def _dynamics(self, weights: SsmWeights) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """(shared by all channels, by token and channel, by channel): the arguments of `_by_direction`."""
        a_NE, log_skip_E = self._rates()
        return [weights.log_b, weights.log_c], [weights.log_delta], [a_NE, log_skip_E]

    def _rates(self) -> tuple[Tensor, Tensor]:
        """A `[N, E]` and log δ `[E]`, in fp32 at least."""
        return -at_least_fp32(self.a_log).exp(), log_softplus(at_least_fp32(self.w_skip))

    def read(self, weights: SsmWeights, v_BTHw: Tensor) -> Tensor:
        shared, by_token, by_channel = self._dynamics(weights)

        def run(b: Tensor, c: Tensor, delta: Tensor, v: Tensor, a: Tensor, skip: Tensor) -> tuple[Tensor]:
            return (selective_read((delta, a, b, c, skip), v),)

        v_BTcE = self._flat(masked(weights.mask_BT, v_BTHw))
        return self._heads(self._by_direction(run, shared, [*by_token, v_BTcE], by_channel)[0])

    def free_energy(self, weights: SsmWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        shared, by_token, by_channel = self._dynamics(weights)

        def run(
            b: Tensor, c: Tensor, delta: Tensor, v: Tensor, a: Tensor, skip: Tensor, beta: Tensor
        ) -> tuple[Tensor, Tensor]:
            return selective_free_energy((delta, a, b, c, skip), v, beta)

        v_BTE = masked(weights.mask_BT, at_least_fp32(v_BTHd)).flatten(2)
        mu, F = self._by_direction(run, shared, [*by_token, v_BTE], [*by_channel, beta_Hd.flatten()])
        return mu.view_as(v_BTHd), F.view_as(v_BTHd)

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        return exact.empty_state(batch, STATES, self.widths.values, running(like), free_energy)

    def layer_step(self, x_BD: Tensor, z_BC: Tensor, state: dict[str, Tensor], gates: Gates | None) -> Tensor | None:
        selection = Selection(self.w_down, self.w_up, self.bias, self.w_states, self.a_log, self.w_skip)
        return selective_layer_step(state, x_BD, z_BC, self.widths.heads, selection, gates)

    def step(
        self, weights: SsmWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        to_logarithms(state, AXES)
        v_BE = at_least_fp32(v_B1Hd).flatten(1)
        a_NE, log_skip_E = self._rates()
        now = (weights.log_delta[:, 0], a_NE, weights.log_b[:, 0], weights.log_c[:, 0], log_skip_E)
        u_BE = None if beta_Hd is None else v_BE * beta_Hd.flatten()
        mu, log_mean, after = exact.exact_step(state, *now, v_BE, u_BE)
        state.update(after)
        if beta_Hd is None or log_mean is None:
            return mu.view_as(v_B1Hd), None
        return mu.view_as(v_B1Hd), log_mean.view_as(v_B1Hd) / beta_Hd

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        D, E, rank = widths.dim, widths.values, _rank(widths.dim)
        return rank * (D + E) + 2 * STATES * D + E * (STATES + 2)

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """Projections of Δ, B and C; then a state of values (twice under FEM) and ones, which is updated and read."""
        D, E, rank = widths.dim, widths.values, _rank(widths.dim)
        return 2 * (rank * (D + E) + 2 * STATES * D) + 2 * 2 * E * STATES * (3 if free_energy else 2)

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return widths.values * STATES * (3 if free_energy else 2)


def log_softplus(z: Tensor) -> Tensor:
    """log(softplus(z)); below −15 the series z − e/2 + 5e²/24 in e = exp(z), exact there in fp64 without underflow."""
    small = (-threshold(-z, 15.0, 15.0)).exp()  # clamp, whose backward pass takes longer
    usual = softplus(threshold(z, -20.0, -20.0)).log()
    return torch.where(z < -15.0, z - small / 2 + 5 / 24 * small.square(), usual)


def _rank(dim: int) -> int:
    return max(1, dim // 16)


class SsmConfig(MixerConfig):
    """There are no queries and keys: the value width is solved for the budget."""

    d_v: int | None = Field(
        default=None, ge=1, description="value width per head; solved for the budget when not given"
    )


@register("ssm")
class Ssm(HostMixer):
    Config = SsmConfig
    Host = SsmPrior
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2312.00752"
    summary = "selective diagonal state space, host prior: 16 states per channel, normalised"

    @classmethod
    def widths_of(cls, config: MixerConfig, dim: int) -> Widths:
        assert isinstance(config, SsmConfig)
        if config.d_v is None:
            raise MixerError("ssm: width d_v is not given; set it, or solve it for a budget (Mixer.size)")
        return Widths(dim, config.heads, 0, config.d_v)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        """Value widths per head in steps of 4 (8 from D = 256 on), widest first."""
        assert isinstance(config, SsmConfig)
        step = 4 if dim < 256 else 8
        for d_v in [config.d_v] if config.d_v else range(max(4 * dim // config.heads // step * step, step), 0, -step):
            yield config.model_copy(update={"d_v": d_v})
