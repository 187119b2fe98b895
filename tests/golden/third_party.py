"""A complete third-party mixer: a gated moving average with one learned decay per channel.

    h_t = a ⊙ h_{t−1} + (1 − a) ⊙ (W_v x)_t,    y = W_o( SiLU(W_g x) ⊙ h ),    a = sigmoid(w)

Without causality half of the channels run from the end. Try it:

    suite check examples/moving_average.py:MovingAverage
    suite run --task sotu --scale board --mixer examples/moving_average.py:MovingAverage
"""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from kernels.scan import diagonal_scan


class MovingAverageConfig(MixerConfig):
    width: int | None = Field(
        default=None, ge=2, multiple_of=2, description="channels E; solved for the budget when not given"
    )


class MovingAverage(Mixer):
    Config = MovingAverageConfig
    capabilities = Capabilities(constant_state=True)
    summary = "gated moving average, one learned decay per channel (example)"
    config: MovingAverageConfig

    def __init__(self, config: MovingAverageConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        assert config.width is not None
        self.in_proj = nn.Linear(dim, 2 * config.width, bias=False)
        self.out_proj = nn.Linear(config.width, dim, bias=False)
        self.w = nn.Parameter(torch.empty(config.width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.in_proj.weight, std=self.dim**-0.5)
        nn.init.normal_(self.out_proj.weight, std=self.dim**-0.5)
        nn.init.uniform_(self.w, 0.0, 5.0)  # memories of about 2 to 150 tokens

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        v_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        a_BTE = self.w.sigmoid().expand_as(v_BTE)
        if context.mask_BT is not None:  # padded tokens are skipped
            a_BTE = a_BTE.masked_fill(~context.mask_BT[..., None], 1.0)
        u_BTE, half = (1 - a_BTE) * v_BTE, v_BTE.shape[-1] // 2
        if self.config.causal:
            h_BTE = diagonal_scan(a_BTE, u_BTE)
        else:
            forward = diagonal_scan(a_BTE[..., :half], u_BTE[..., :half])
            h_BTE = torch.cat([forward, diagonal_scan(a_BTE[..., half:], u_BTE[..., half:], reverse=True)], dim=-1)
        return self.out_proj(silu(gate_BTE) * h_BTE)

    def plain_forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The formula token by token: optional, the contract compares `forward` and `cost` with it."""
        v_BTE, gate_BTE = self.in_proj(x_BTD).chunk(2, dim=-1)
        (T, E), a_E = v_BTE.shape[1:], self.w.sigmoid()
        real_BT = torch.ones_like(v_BTE[..., 0], dtype=torch.bool) if context.mask_BT is None else context.mask_BT
        ahead = E if self.config.causal else E // 2
        h_BTE = torch.zeros_like(v_BTE)
        for part, order in ((slice(0, ahead), range(T)), (slice(ahead, E), range(T - 1, -1, -1))):
            h, a = torch.zeros_like(v_BTE[:, 0, part]), a_E[part]
            for t in order:
                h = torch.where(real_BT[:, t, None], a * h + (1 - a) * v_BTE[:, t, part], h)
                h_BTE[:, t, part] = h
        return self.out_proj(silu(gate_BTE) * h_BTE)

    def init_state(self, batch: int, max_len: int) -> State:
        return State({"h_BE": self.w.new_zeros(batch, self.w.numel())})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        v_BE, gate_BE = self.in_proj(x_BD).chunk(2, dim=-1)
        h_BE = torch.lerp(v_BE, state.tensors["h_BE"], self.w.sigmoid())
        return self.out_proj(silu(gate_BE) * h_BE), State({"h_BE": h_BE}, state.position + 1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MovingAverageConfig]:
        assert isinstance(config, MovingAverageConfig)
        widths = [config.width] if config.width else range(2 * dim, 0, -2)
        return (config.model_copy(update={"width": width}) for width in widths)

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: the projections, and 2 per channel for the scan."""
        assert isinstance(config, MovingAverageConfig)
        assert config.width is not None
        E = config.width
        return Cost(parameters=3 * E * dim + E, flops=6 * E * dim + 2 * E, state_bytes=4 * E if config.causal else 0)
