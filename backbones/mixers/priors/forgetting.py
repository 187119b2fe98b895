"""The prior of forgetting attention (FoX, arXiv 2503.02130): softmax whose scores decay by gates that read the input.

    log f_t = logsigmoid(W_f x_t + b_f)   per head,      c_t = Σ_{s ≤ t} log f_s
    p_t(i) ∝ exp( q_t·k_i/√k − |c_t − c_i| ),            no rotary positions,      b_f = 0 at start

`|c_t − c_i| = −Σ log f` over the gates from the one token, not included, to the other: a token's own gate is not
applied to itself. The form that is not causal is ours: the same decay in either direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from backbones.mixers.base import Context
from backbones.mixers.priors.base import Prior, Widths, at_least_fp32
from kernels.attention import softmax_read
from kernels.free_energy import free_energy_read
from kernels.numerics.log_mean_exp import log_mean_exp


@dataclass(frozen=True)
class ForgettingWeights:
    """log f is of the tokens of `k_BTHk`, 0 at padding."""

    q_BTHk: Tensor
    k_BTHk: Tensor
    log_f_BTH: Tensor
    mask_BT: Tensor | None


class ForgettingPrior(Prior):
    """Softmax weights with decays that read the input."""

    constant_state = False

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        self.b_f = nn.Parameter(torch.zeros(widths.heads))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.b_f)

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return widths.heads * widths.key, widths.heads * widths.key, widths.heads

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> ForgettingWeights:
        q_BTHk, k_BTHk = (z.unflatten(-1, (self.widths.heads, self.widths.key)) for z in keys[:2])
        log_f_BTH = logsigmoid(at_least_fp32(keys[2]) + self.b_f)
        if context.mask_BT is not None:
            log_f_BTH = log_f_BTH.masked_fill(~context.mask_BT[..., None], 0.0)
        return ForgettingWeights(q_BTHk, k_BTHk, log_f_BTH, context.mask_BT)

    def read(self, weights: ForgettingWeights, v_BTHw: Tensor) -> Tensor:
        q, k, log_f = weights.q_BTHk, weights.k_BTHk, weights.log_f_BTH
        return softmax_read(q, k, v_BTHw, self.causal, weights.mask_BT, log_f_BTH=log_f)

    def log_read(self, weights: ForgettingWeights, u_BTHw: Tensor) -> Tensor:
        return self.free_energy(weights, u_BTHw, u_BTHw.new_ones(u_BTHw.shape[2:]))[1]

    def free_energy(self, weights: ForgettingWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        q, k, log_f = weights.q_BTHk, weights.k_BTHk, weights.log_f_BTH
        return free_energy_read(q, k, v_BTHd, beta_Hd, self.causal, weights.mask_BT, log_f)

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        w = self.widths
        return {
            "k_BTHk": like.new_zeros(batch, max_len, w.heads, w.key),
            "v_BTHd": like.new_zeros(batch, max_len, w.heads, w.value),
            "log_f_BTH": at_least_fp32(like.new_zeros(batch, max_len, w.heads)),
        }

    def step(
        self,
        weights: ForgettingWeights,
        v_B1Hd: Tensor,
        state: dict[str, Tensor],
        position: int,
        beta_Hd: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        new = {"k_BTHk": weights.k_BTHk, "v_BTHd": v_B1Hd, "log_f_BTH": weights.log_f_BTH}
        for name, token in new.items():
            state[name][:, position] = token[:, 0]
        k, v, log_f = (state[name][:, : position + 1] for name in new)
        c_BTH = log_f.double().cumsum(1)  # again at every token: differences of stored sums would round
        decays_BHT = (c_BTH[:, -1:] - c_BTH).transpose(1, 2)
        scores_BHT = at_least_fp32(torch.einsum("bhk,bihk->bhi", weights.q_BTHk[:, 0], k.to(weights.q_BTHk.dtype)))
        log_p_BH1T = (scores_BHT * self.widths.key**-0.5 + decays_BHT.to(scores_BHT.dtype)).log_softmax(-1)[:, :, None]
        if beta_Hd is None:
            return torch.einsum("bhsi,bihd->bshd", log_p_BH1T.exp().to(v_B1Hd.dtype), v.to(v_B1Hd.dtype)), None
        v_BHTd, beta_H1d = v.transpose(1, 2).to(log_p_BH1T.dtype), beta_Hd[:, None].to(log_p_BH1T.dtype)
        F_BH1d = log_mean_exp(log_p_BH1T, v_BHTd * beta_H1d) / beta_H1d
        mu_BH1d = log_p_BH1T.exp() @ v_BHTd
        return mu_BH1d.transpose(1, 2).to(v_B1Hd.dtype), F_BH1d.transpose(1, 2).to(v_B1Hd.dtype)

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        return widths.heads

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """As softmax: scores 2·T·k per head, each read 2·T·d per head."""
        return 2 * length * widths.heads * (widths.key + (2 if free_energy else 1) * widths.value)

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return length * widths.heads * (widths.key + widths.value + 1)
