"""Deconstructed attention (arXiv 2510.11602): standard attention relaxed one principle at a time, 4D² parameters each."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.functional import silu

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.prior import normal_
from backbones.mixers.registry import register


@register("no-mixing")
class NoMixing(Mixer):
    """No token sees another: `W_dn( SiLU(W_gt x) ⊙ (W_up x) )`, inner width ⌊4D/3⌋. `heads` has no meaning here."""

    Config = MixerConfig
    capabilities = Capabilities(mixes_tokens=False, constant_state=True)
    paper = "arXiv 2510.11602"
    summary = "no token mixing: a gated MLP in attention's place"

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.in_proj = nn.Linear(dim, 2 * (4 * dim // 3), bias=False)  # W_gt and W_up
        self.out_proj = nn.Linear(4 * dim // 3, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        gate, up = self.in_proj(x_BTD).chunk(2, dim=-1)
        return self.out_proj(silu(gate) * up)

    def init_state(self, batch: int, max_len: int) -> State:
        return State()

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        return self.forward(x_BD), State(position=state.position + 1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        return [config]

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 a weight and token."""
        parameters = 3 * dim * (4 * dim // 3)
        return Cost(parameters=parameters, flops=2 * parameters, state_bytes=0)
