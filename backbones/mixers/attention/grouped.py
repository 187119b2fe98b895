"""Grouped-query attention (arXiv 2305.13245): several query heads share one head of keys and values.

With g query heads per head of keys and values, E channels of queries and E/g of keys and of values, the layer has
2·D·E·(1 + 1/g) parameters; E ≈ 2D/(1 + 1/g) makes it 4D². Its state is 2/(1 + g) of that of softmax attention.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from backbones.mixers.attention.base import Attention, remember
from backbones.mixers.base import Context, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.registry import register
from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read


class GroupedConfig(MixerConfig):
    """Options of grouped-query attention."""

    group: int = Field(default=2, ge=2, description="query heads per head of keys and values")


@register("gqa")
class GroupedQueryAttention(Attention):
    """Softmax attention with fewer heads of keys and values than of queries."""

    Config = GroupedConfig
    paper = "arXiv 2305.13245"
    summary = "grouped-query attention: heads of queries share keys and values"

    def __init__(self, config: GroupedConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.shared = config.heads // config.group
        self.in_proj = nn.Linear(dim, (config.heads + 2 * self.shared) * self.width, bias=False)
        self.reset_parameters()

    @classmethod
    def width_of(cls, config: MixerConfig, dim: int) -> int:
        assert isinstance(config, GroupedConfig)
        if config.heads % config.group:
            raise MixerError(f"group={config.group} does not divide the number of heads, {config.heads}")
        return max(2, 2 * round(dim / (1 + 1 / config.group) / config.heads))

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        queries, shared = self.config.heads * self.width, self.shared * self.width
        q, k, v = self.in_proj(x_BTD).split((queries, shared, shared), dim=-1)
        return q, k, v

    def heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (-1, self.width))

    def rotated(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().rotated(x_BTD, context, offset)
        return q, self._repeated(k), self._repeated(v)

    def _repeated(self, x_BTGd: Tensor) -> Tensor:
        return x_BTGd.repeat_interleave(self.config.heads // self.shared, dim=2)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        shape = (batch, max_len, self.shared, self.width)
        return State({name: self.out_proj.weight.new_zeros(shape) for name in ("k_BTGd", "v_BTGd")})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        q, k, v = (self.heads(z) for z in self.project(x_BD[:, None], context))
        q, k = rotate(q, state.position), rotate(k, state.position)
        ks, vs = (remember(state, name, new).to(q.dtype) for name, new in (("k_BTGd", k), ("v_BTGd", v)))
        # query heads of a group as queries of one head: nothing of the cache is repeated
        q_BgGd = q[:, 0].unflatten(1, (self.shared, -1)).transpose(1, 2)
        y_BgGd = softmax_read(q_BgGd, ks, vs, causal=False)
        return self.merge(y_BgGd.transpose(1, 2).flatten(1, 2)[:, None])[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        assert isinstance(config, GroupedConfig)
        return dim * cls.width_of(config, dim) * (config.heads + 2 * config.heads // config.group), 0

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        flops, numbers = super().read_cost(config, dim, length)
        assert isinstance(config, GroupedConfig)
        return flops, numbers // config.group
