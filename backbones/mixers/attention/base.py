"""Attention as a base class: heads, rotary positions, the softmax read, the decoding cache. Subclasses compute q, k and
v.

p_t(i) ∝ exp(q_t·k_i/√d),   y = W_o · merge( Σ_i p_t(i) v_i ),   q and k rotated by position,   d = D/H
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from backbones.mixers.base import Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.priors.base import head_width, normal_, projected_out
from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read


class Attention(Mixer):
    """Subclasses define `project`, `project_parameters` and, for more than Linear modules, `reset_parameters`."""

    Config = MixerConfig

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.width = head_width(dim, config.heads, even=True)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    @abstractmethod
    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v `[B, T, D]`, before heads and positions."""

    @classmethod
    @abstractmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        """(weights of matrices, other parameters), without W_o's D²."""

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                normal_(module.weight)

    def heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.config.heads, self.width))

    def rotated(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """q and k, rotated, and v, `[B, T, H, d]` each; `offset` is the position of the first token."""
        q, k, v = (self.heads(z) for z in self.project(x_BTD, context))
        return rotate(q, offset), rotate(k, offset), v

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, v = self.rotated(x_BTD, context)
        return self.merge(softmax_read(q, k, v, self.config.causal, context.mask_BT))

    def merge(self, y_BTHd: Tensor) -> Tensor:
        return projected_out(self.out_proj, y_BTHd.flatten(2))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The weights `[B, H, T, T]` of every position (rows) on every other, for inspection only."""
        q, k, _ = self.rotated(x_BTD, context)
        return softmax_map(q, k, self.config.causal, context.mask_BT)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        shape = (batch, max_len, self.config.heads, self.width)
        return State({name: self.out_proj.weight.new_zeros(shape) for name in ("k_BTHd", "v_BTHd")})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        q, k, v = self.rotated(x_BD[:, None], context, state.position)
        k, v = (remember(state, name, new).to(q.dtype) for name, new in (("k_BTHd", k), ("v_BTHd", v)))
        return self.merge(softmax_read(q, k, v, causal=False))[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        head_width(dim, config.heads, even=True)
        return [config]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token, and those of the read."""
        matrices, others = cls.project_parameters(config, dim)
        matrices += dim * dim
        flops, numbers = cls.read_cost(config, dim, length)
        return Cost(matrices + others, 2 * matrices + flops, 4 * numbers if config.causal else 0)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """(FLOPs per token of scores and read, numbers in the decoding state)."""
        return 4 * length * dim, 2 * length * dim


class ProjectedAttention(Attention):
    """W_q, W_k and W_v of D² each, in one matrix. Subclasses' constructors end with `reset_parameters`."""

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.in_proj(x_BTD).chunk(3, dim=-1)
        return q, k, v

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        return 3 * dim * dim, 0


def remember(state: State, name: str, new_B1: Tensor) -> Tensor:
    """Writes one token into a cache `[B, T, …]` of the state; returns the cache up to that token."""
    state.tensors[name][:, state.position] = new_B1[:, 0]
    return state.tensors[name][:, : state.position + 1]


def softmax_map(q_BSHd: Tensor, k_BTHd: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """softmax(q·k/√d) over the visible keys, `[B, H, S, T]` in fp32 at least; zero in rows that see no key. Causal
    maps need S = T.
    """
    scores_BHST = torch.einsum("bshd,bihd->bhsi", q_BSHd, k_BTHd) * q_BSHd.shape[-1] ** -0.5
    return masked_softmax(scores_BHST.to(torch.promote_types(scores_BHST.dtype, torch.float32)), causal, mask_BT)


def masked_softmax(scores_BHST: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """Softmax over the keys that a row sees; a row that sees none is zero."""
    hidden = torch.zeros(scores_BHST.shape[-2:], dtype=torch.bool, device=scores_BHST.device)
    if causal:
        hidden = hidden.logical_not().triu(1)
    if mask_BT is not None:
        hidden = hidden | ~mask_BT[:, None, None]
    return scores_BHST.masked_fill(hidden, torch.finfo(scores_BHST.dtype).min).softmax(-1).masked_fill(hidden, 0.0)
