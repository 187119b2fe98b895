"""Attention as a base class: heads, rotary positions, the softmax read, the decoding cache. Subclasses compute q, k and
v.

p_t(i) ∝ exp(q_t·k_i/√d),   y = W_o · merge( Σ_i p_t(i) v_i ),   q and k rotated by position

The heads have E = H·d channels together: D, unless a subclass says otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from backbones.mixers.base import Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.priors.base import at_least_fp32, head_width, normal_, projected_out
from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read
from kernels.projection import projections


class Attention(Mixer):
    """Subclasses define `project`, `project_parameters` and, for more than Linear modules, `reset_parameters`; those
    that change the read, `read` or, after it, `finish`.
    """

    Config = MixerConfig

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.width = self.width_of(config, dim)
        self.out_proj = nn.Linear(config.heads * self.width, dim, bias=False)

    @classmethod
    def width_of(cls, config: MixerConfig, dim: int) -> int:
        """d, channels per head; even."""
        return head_width(dim, config.heads, even=True)

    @abstractmethod
    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v `[B, T, E]`, before heads and positions."""

    @classmethod
    @abstractmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        """(weights of matrices, other parameters), without W_o's."""

    def finish(self, y_BTHd: Tensor, v_BTHd: Tensor, x_BTD: Tensor) -> Tensor:
        """What happens to the read of each head before W_o: nothing, unless a subclass says otherwise."""
        return y_BTHd

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
        return self.merge(self.finish(self.read(q, k, v, context), v, x_BTD))

    def read(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """The read of all positions `[B, T, H, d]`."""
        return softmax_read(q, k, v, self.config.causal, context.mask_BT)

    def hidden(self, scores_BHST: Tensor, context: Context) -> Tensor:
        """Which keys a row does not see, for `attention_map`."""
        return hidden_keys(scores_BHST, self.config.causal, context.mask_BT)

    def merge(self, y_BTHd: Tensor) -> Tensor:
        return projected_out(self.out_proj, y_BTHd.flatten(2))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """The weights `[B, H, T, T]` of every position (rows) on every other, for inspection only."""
        q, k, _ = self.rotated(x_BTD, context)
        scores_BHST = at_least_fp32(torch.einsum("bshd,bihd->bhsi", q, k) * self.width**-0.5)
        return softmax_where(scores_BHST, self.hidden(scores_BHST, context))

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        shape = (batch, max_len, self.config.heads, self.width)
        return State({name: self.out_proj.weight.new_zeros(shape) for name in ("k_BTHd", "v_BTHd")})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        return self.decoded(*self.rotated(x_BD[:, None], context, state.position), state, x_BD)

    def decoded(
        self, q_B1Hd: Tensor, k_B1Hd: Tensor, v_B1Hd: Tensor, state: State, x_BD: Tensor
    ) -> tuple[Tensor, State]:
        """The output of a token, whose key and value join the cache, and the next state."""
        at, new = self.slot(state.position), {"k_BTHd": k_B1Hd, "v_BTHd": v_B1Hd}
        k, v = (remember(state, name, token, at).to(q_B1Hd.dtype) for name, token in new.items())
        y_B1Hd = self.finish(softmax_read(q_B1Hd, k, v, causal=False), v_B1Hd, x_BD[:, None])
        return self.merge(y_B1Hd)[:, 0], State(state.tensors, state.position + 1)

    def slot(self, position: int) -> int:
        """Where a token is in the cache: in order, unless a subclass forgets tokens."""
        return position

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.width_of(config, dim)
        return [config]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token, and those of the read."""
        matrices, others = cls.project_parameters(config, dim)
        matrices += dim * config.heads * cls.width_of(config, dim)
        flops, numbers = cls.read_cost(config, dim, length)
        return Cost(matrices + others, 2 * matrices + flops, 4 * numbers if config.causal else 0)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """(FLOPs per token of scores and read, numbers in the decoding state)."""
        channels = config.heads * cls.width_of(config, dim)
        return 4 * length * channels, 2 * length * channels


class ProjectedAttention(Attention):
    """W_q, W_k and W_v of D·E each, in one matrix. Subclasses' constructors end with `reset_parameters`."""

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.in_proj = nn.Linear(dim, 3 * config.heads * self.width, bias=False)

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        width = len(self.in_proj.weight) // 3
        q, k, v = projections(x_BTD, self.in_proj.weight, (width,) * 3)
        return q, k, v

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        return 3 * dim * config.heads * cls.width_of(config, dim), 0


def remember(state: State, name: str, new_B1: Tensor, at: int | None = None) -> Tensor:
    """Writes one token into a cache `[B, T, …]` of the state, in order or in place `at`; returns the cache as far as it
    is filled.
    """
    state.tensors[name][:, state.position if at is None else at] = new_B1[:, 0]
    return state.tensors[name][:, : state.position + 1]


def softmax_map(q_BSHd: Tensor, k_BTHd: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """softmax(q·k/√d) over the visible keys, `[B, H, S, T]` in fp32 at least; zero in rows that see no key. Causal
    maps need S = T.
    """
    scores_BHST = torch.einsum("bshd,bihd->bhsi", q_BSHd, k_BTHd) * q_BSHd.shape[-1] ** -0.5
    return masked_softmax(scores_BHST.to(torch.promote_types(scores_BHST.dtype, torch.float32)), causal, mask_BT)


def masked_softmax(scores_BHST: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """Softmax over the keys that a row sees; a row that sees none is zero."""
    return softmax_where(scores_BHST, hidden_keys(scores_BHST, causal, mask_BT))


def softmax_where(scores_BHST: Tensor, hidden: Tensor) -> Tensor:
    """Softmax over the keys that are not hidden; a row without any is zero."""
    return scores_BHST.masked_fill(hidden, torch.finfo(scores_BHST.dtype).min).softmax(-1).masked_fill(hidden, 0.0)


def hidden_keys(scores_BHST: Tensor, causal: bool, mask_BT: Tensor | None = None) -> Tensor:
    """Which keys a row does not see, of a shape that broadcasts with the scores."""
    hidden = torch.zeros(scores_BHST.shape[-2:], dtype=torch.bool, device=scores_BHST.device)
    if causal:
        hidden = hidden.logical_not().triu(1)
    return hidden if mask_BT is None else hidden | ~mask_BT[:, None, None]
