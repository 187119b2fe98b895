"""Softmax attention with a learned sink per head (arXiv 2309.17453; the form with a logit is that of gpt-oss):

    p_t(i) = exp(q_t·k_i/√d) / ( exp(s_h) + Σ_j exp(q_t·k_j/√d) ),      s_h = 0 at start

The weights of a row sum to less than 1. The sink is a key in front of the sequence with a logit of its own and value 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from backbones.mixers.attention.base import ProjectedAttention, remember
from backbones.mixers.base import Context, MixerConfig, State
from backbones.mixers.priors.base import at_least_fp32
from backbones.mixers.registry import register
from kernels.attention import softmax_read


@register("sink")
class SinkAttention(ProjectedAttention):
    """Softmax attention that can attend to nothing."""

    paper = "arXiv 2309.17453"
    summary = "softmax attention with a learned sink per head: a row can attend to nothing"
    no_weight_decay = frozenset({"sink"})

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.sink = nn.Parameter(torch.empty(config.heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.sink)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, v = self.rotated(x_BTD, context)
        B, _, H, d = k.shape
        mask = None if context.mask_BT is None else pad(context.mask_BT, (1, 0), value=True)
        # one more channel: 1 in queries, 0 in keys, and the sink's logit in its key
        logit_B1H1 = (self.sink * d**0.5).to(k.dtype).expand(B, 1, H)[..., None]
        keys = torch.cat((pad(logit_B1H1, (d, 0)), pad(k, (0, 1))), dim=1)
        queries, values = pad(q, (0, 1, 0, 0, 1, 0), value=1.0), pad(v, (0, 0, 0, 0, 1, 0))
        y = softmax_read(queries, keys, values, self.config.causal, mask, scale=d**-0.5)
        return self.merge(y[:, 1:])

    def attention_map(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, _ = self.rotated(x_BTD, context)
        scores_BHTT = at_least_fp32(torch.einsum("bshd,bihd->bhsi", q, k)) * self.width**-0.5
        return self._weights(scores_BHTT.masked_fill(self.hidden(scores_BHTT, context), -torch.inf))

    def _weights(self, scores_BHST: Tensor) -> Tensor:
        """The weights of the keys; what the sink takes is missing in their sum."""
        B, H, S, _ = scores_BHST.shape
        sink_BHS1 = self.sink.to(scores_BHST.dtype)[:, None, None].expand(B, H, S, 1)
        return torch.cat((scores_BHST, sink_BHS1), dim=-1).softmax(-1)[..., :-1]

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        q, k, v = self.rotated(x_BD[:, None], context, state.position)
        ks, vs = (remember(state, name, new).to(q.dtype) for name, new in (("k_BTHd", k), ("v_BTHd", v)))
        p_BHST = self._weights(torch.einsum("bshd,bihd->bhsi", q, ks) * self.width**-0.5)
        y_BSHd = torch.einsum("bhsi,bihd->bshd", p_BHST, vs)
        return self.merge(y_BSHd)[:, 0], State(state.tensors, state.position + 1)

    @classmethod
    def project_parameters(cls, config: MixerConfig, dim: int) -> tuple[int, int]:
        matrices, others = super().project_parameters(config, dim)
        return matrices, others + config.heads
