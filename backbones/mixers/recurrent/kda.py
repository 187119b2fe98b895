"""Kimi delta attention (arXiv 2510.26692): the delta rule with a decay per key channel.

    q, k, v, β as in Gated DeltaNet (`recurrent.delta`), with K = V and d = V/H
    log α = −exp(A_log) softplus(F₂ F₁ x + b_Δ)          per key channel, A_log per head;   F₁ [d, D], F₂ [K, d]
    S_t = (I − β_t k_t k_tᵀ) diag(α_t) S_{t−1} + β_t k_t v_tᵀ,      o_t = S_tᵀ q_t / √d
    y = W_o merge( RMS_head(o) ⊙ gain ⊙ σ(G₂ G₁ x + b_g) )                                  G₁ [d, D], G₂ [V, d]

d is solved for the budget. Initial rates and steps are those of Gated DeltaNet. Not causal: half of the heads run on
the sequence from the end, their convolution included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from backbones.mixers.priors.base import at_least_fp32, normal_
from backbones.mixers.recurrent.delta import DeltaConfig, DeltaLayer
from backbones.mixers.registry import register
from kernels.linear.channel_delta import channel_delta_rule, channel_delta_step


@register("kda")
class Kda(DeltaLayer):
    """The delta rule with a decay per key channel, and a gate of low rank on its output."""

    paper = "arXiv 2510.26692"
    summary = "Kimi delta attention: the delta rule with a decay per key channel and a gated output"
    gated = True
    gate = "sigmoid"

    def __init__(self, config: DeltaConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        rank = self.values // config.heads
        self.w_decay = nn.Parameter(torch.empty(self.keys, rank))
        self.w_gate = nn.Parameter(torch.empty(self.values, rank))
        self.b_gate = nn.Parameter(torch.empty(self.values))
        self.reset_parameters()

    @classmethod
    def gates_of(cls, config: DeltaConfig) -> tuple[int, int]:
        rank = cls.widths_of(config)[1] // config.heads
        return rank, rank

    @classmethod
    def decays_of(cls, config: DeltaConfig) -> int:
        return cls.widths_of(config)[0]

    def reset_parameters(self) -> None:
        super().reset_parameters()
        normal_(self.w_decay)
        normal_(self.w_gate)
        nn.init.zeros_(self.b_gate)

    def _log_decay(self, step: Tensor) -> Tensor:
        assert self.a_log is not None
        assert self.b_delta is not None
        z = at_least_fp32(linear(step, self.w_decay.to(step.dtype))) + self.b_delta
        return -self.a_log.exp()[:, None] * softplus(z).unflatten(-1, (self.config.heads, -1))

    def _rule(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None) -> Tensor:
        assert log_decay is not None
        return channel_delta_rule(q, k, v, beta, log_decay)

    def _rule_step(
        self, memory: Tensor, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert log_decay is not None
        return channel_delta_step(memory, q, k, v, beta, log_decay.to(memory.dtype))

    def _gate_logits(self, z: Tensor) -> Tensor:
        return at_least_fp32(linear(z, self.w_gate.to(z.dtype))) + self.b_gate

    @classmethod
    def own_parameters(cls, config: DeltaConfig) -> tuple[int, int]:
        K, V = cls.widths_of(config)
        return (K + V) * (V // config.heads), V
