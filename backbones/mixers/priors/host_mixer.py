"""A host prior as a mixer: its weights, positive and normalised, read the values directly.

    y = W_o · merge(read(W_v x))

It is the baseline of FEM on the same prior, and not the full published layer of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import linear

from backbones.mixers.base import Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.priors.base import Prior, Widths, head_width, normal_, prior_map, projected_out
from kernels.decoding.running import steps_with
from kernels.projection import modulated_projection


class HostMixer(Mixer):
    """`y = W_o · merge(read(W_v x))` over the prior `Host`, with E = D unless a subclass says otherwise."""

    Config = MixerConfig
    Host: ClassVar[type[Prior]]
    board_note = "host prior"

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

    def inputs(self, x_BTD: Tensor, context: Context) -> tuple[Sequence[Tensor], Tensor]:
        """The prior's keys and the values `[B, T, H, d]` of whole sequences."""
        return self._project(x_BTD)

    def token_inputs(self, x_B1D: Tensor, state: State) -> tuple[Sequence[Tensor], Tensor]:
        """Those of one token, in decoding."""
        return self._project(x_B1D)

    def output(self, x_BTD: Tensor, y_BTHd: Tensor) -> Tensor:
        """From the finished read to the layer's output."""
        return projected_out(self.out_proj, y_BTHd.flatten(2))

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        keys, v_BTHd = self.inputs(x_BTD, context)
        weights = self.prior.prepare(x_BTD, keys, context)
        return self.output(x_BTD, self.prior.finish(weights, self.prior.read(weights, v_BTHd)))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The prior's weights `[B, H, T, T]`, for inspection."""
        keys, _ = self.inputs(x_BTD, context)
        return prior_map(self.prior, self.prior.prepare(x_BTD, keys, context), x_BTD)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        return State(self.prior.init_state(batch, max_len, self.out_proj.weight, free_energy=False))

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        x_B1D = x_BD[:, None]
        y_BE = self._compiled_step(x_BD, state, context)
        if y_BE is not None:
            y_B1Hw = y_BE.unflatten(-1, (self.widths.heads, self.widths.value))[:, None]
            return self.output(x_B1D, y_B1Hw)[:, 0], State(state.tensors, state.position + 1)
        keys, v_B1Hd = self.token_inputs(x_B1D, state)
        weights = self.prior.prepare(x_B1D, keys, context, offset=state.position)
        y_B1Hd, _ = self.prior.step(weights, v_B1Hd, state.tensors, state.position, None)
        return self.output(x_B1D, self.prior.finish(weights, y_B1Hd))[:, 0], State(state.tensors, state.position + 1)

    def _compiled_step(self, x_BD: Tensor, state: State, context: Context) -> Tensor | None:
        """`[B, E]`, the read of one token in one operation; None where there is none."""
        weight = self.in_proj.weight
        if not self.prior.fused_step or context.mask_BT is not None or not steps_with((), x_BD, weight):
            return None
        return self.prior.layer_step(x_BD, linear(x_BD, weight), state.tensors, None)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.widths_of(config, dim)
        return [config]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """2 FLOPs per weight of a projection and token, and the prior's reads (`Prior.flops`)."""
        widths = cls.widths_of(config, dim)
        projections = dim * (sum(cls.Host.projected(widths)) + 2 * widths.values)
        return Cost(
            parameters=projections + cls.Host.parameters_of(widths),
            flops=2 * projections + cls.Host.flops(widths, length, free_energy=False),
            state_bytes=4 * cls.Host.state_numbers(widths, length, free_energy=False) if config.causal else 0,
        )
