"""Attention whose queries and keys do not come from x (arXiv 2510.11602); the values do. 4D² parameters, rotary
positions.

    random-qk    from a constant random sequence run through the blocks    relaxes the dependence on the sequence
    fixed-qk     from one fixed real example run through the blocks        the same, with realistic statistics
    static-qk    from the embeddings at layer 0                            relaxes the coupling to the hidden state

The constant sequence is the batch's last row (`Context.constant_row`): its weights are computed once and used for every
row, the last one included.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from backbones.mixers.attention.base import ProjectedAttention, remember, softmax_map
from backbones.mixers.base import Capabilities, Context, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.registry import register
from backbones.mixers.rotary import rotate
from kernels.attention import softmax_read


class SplitProjection(ProjectedAttention):
    """W_q and W_k applied to one input, W_v to another."""

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.reset_parameters()

    def queries_keys(self, source_BTD: Tensor) -> tuple[Tensor, Tensor]:
        q, k = linear(source_BTD, self.in_proj.weight[: 2 * self.dim]).chunk(2, dim=-1)
        return q, k

    def values(self, x_BTD: Tensor) -> Tensor:
        return linear(x_BTD, self.in_proj.weight[2 * self.dim :])


@register("static-qk")
class StaticQK(SplitProjection):
    """q and k from the embeddings at layer 0, v from x."""

    capabilities = Capabilities(needs=frozenset({"embedding"}))
    paper = "arXiv 2510.11602"
    summary = "queries and keys from the embeddings at layer 0"

    def project(self, x_BTD: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        if context.embedding_BTD is None:
            raise MixerError("static-qk reads the embeddings at layer 0, and none were given (Context.embedding_BTD)")
        return *self.queries_keys(context.embedding_BTD), self.values(x_BTD)


class ConstantQK(SplitProjection):
    """q and k from the batch's last row, v from every row."""

    capabilities = Capabilities(needs=frozenset({"constant row"}))
    paper = "arXiv 2510.11602"
    constant: ClassVar[Literal["random", "example"]]  # where the constant sequence comes from

    def _constant_queries_keys(self, x_BTD: Tensor, context: Context, offset: int = 0) -> tuple[Tensor, Tensor]:
        """q and k of the last row, rotated, `[1, T, H, d]` each."""
        if not context.constant_row:
            raise MixerError(
                "random-qk and fixed-qk read a constant sequence as the batch's last row, and none was given "
                "(Context.constant_row)"
            )
        q, k = (self.heads(z) for z in self.queries_keys(x_BTD[-1:]))
        return rotate(q, offset), rotate(k, offset)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k = self._constant_queries_keys(x_BTD, context)
        v_BTHd = self.heads(self.values(x_BTD))
        if x_BTD.shape[0] == 0:
            return self.merge(v_BTHd)
        if context.mask_BT is None:
            p_HTT = softmax_map(q, k, self.config.causal)[0].to(v_BTHd.dtype)
            return self.merge(torch.einsum("hti,bihd->bthd", p_HTT, v_BTHd))
        q, k = (_after_padding(z, context.mask_BT) for z in (q, k))
        return self.merge(softmax_read(q, k, v_BTHd, self.config.causal, context.mask_BT))

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k = self._constant_queries_keys(x_BTD, context)
        if context.mask_BT is None:
            return softmax_map(q, k, self.config.causal).expand(x_BTD.shape[0], -1, -1, -1)
        q, k = (_after_padding(z, context.mask_BT) for z in (q, k))
        return softmax_map(q, k, self.config.causal, context.mask_BT)

    def init_state(self, batch: int, max_len: int) -> State:
        """`batch` includes the constant row. Keys are kept for that row only, values for every row."""
        self.require_causal()
        zeros, shape = self.out_proj.weight.new_zeros, (max_len, self.config.heads, self.width)
        return State({"k_1THd": zeros(1, *shape), "v_BTHd": zeros(batch, *shape)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        if x_BD.shape[0] == 0:
            return self.merge(self.heads(self.values(x_BD[:, None])))[:, 0], State(state.tensors, state.position + 1)
        q, k = self._constant_queries_keys(x_BD[:, None], context, state.position)
        k_1nHd = remember(state, "k_1THd", k).to(q.dtype)
        v_BnHd = remember(state, "v_BTHd", self.heads(self.values(x_BD[:, None]))).to(q.dtype)
        p_H1n = softmax_map(q, k_1nHd, causal=False)[0].to(v_BnHd.dtype)
        y_B1Hd = torch.einsum("hti,bihd->bthd", p_H1n, v_BnHd)
        return self.merge(y_B1Hd)[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def read_cost(cls, config: MixerConfig, dim: int, length: int) -> tuple[int, int]:
        """FLOPs of one sequence that computes the weights too; keys of the constant row, values of both rows."""
        return 4 * length * dim, 3 * length * dim


@register("random-qk")
class RandomQK(ConstantQK):
    """The constant sequence is drawn at random."""

    constant = "random"
    summary = "queries and keys from a constant random sequence"


@register("fixed-qk")
class FixedQK(ConstantQK):
    """The constant sequence is one training example."""

    constant = "example"
    summary = "queries and keys from one fixed real example"


def _after_padding(z_1THd: Tensor, mask_BT: Tensor) -> Tensor:
    """The constant sequence shifted for each row: token n is at the row's n-th real position, and the first token at
    padded positions.
    """
    B, T = mask_BT.shape
    index_BT = (torch.arange(T, device=mask_BT.device) - (~mask_BT).sum(1, keepdim=True)).clamp_min(0)
    return z_1THd.expand(B, -1, -1, -1).gather(1, index_BT[..., None, None].expand(-1, -1, *z_1THd.shape[2:]))
