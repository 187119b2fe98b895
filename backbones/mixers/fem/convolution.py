"""FEM's low-rank convolution with data-dependent decay, O(T·R) (arXiv 2602.07160):

    z = LayerNorm(x),  a_t = exp(−softplus(W_a z_t)),  h_t = a_t ⊙ h_{t−1} + W_u z_t,
    c = (RMS(softplus(W_s z)) ⊙ LayerNorm(h)) P          P zero at start

Without causality half of the R channels scan forward, half from the end. The layer norms have no gains: W_a, W_u, W_s
and P absorb them. Over R = 2 channels LayerNorm(h) is a smoothed sign of their difference, and its eps bounds the slope
of that sign.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from backbones.mixers.priors.base import normal_
from kernels.decoding.convolutions import convolution_step
from kernels.gates import EPS
from kernels.low_rank import STATE_EPS, low_rank_scan, normed_projection, scaled

INPUT_EPS = 1e-5  # of LayerNorm(x)


def rank_of(values: int) -> int:
    """R = E/32, at least 2."""
    return max(2, round(values / 32))


class LowRankConvolution(nn.Module):
    """`factors` returns `s_BTR`, so that `c = s P`; the mixer multiplies its projections by `1 + sP`."""

    def __init__(self, dim: int, rank: int, outputs: int, causal: bool) -> None:
        super().__init__()
        self.rank, self.causal = rank, causal
        self.in_proj = nn.Parameter(torch.empty(3 * rank, dim))
        self.out_proj = nn.Parameter(torch.empty(rank, outputs))

    def reset_parameters(self) -> None:
        normal_(self.in_proj)
        nn.init.zeros_(self.out_proj)

    @staticmethod
    def parameters_of(dim: int, rank: int, outputs: int) -> int:
        return rank * (3 * dim + outputs)

    def factors(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """s `[B, T, R]`, in fp32 at least; padded tokens are skipped."""
        dtype = torch.promote_types(x_BTD.dtype, torch.float32)
        return low_rank_scan(normed_projection(x_BTD, self.in_proj.double(), INPUT_EPS), self.causal, mask_BT, dtype)

    def step(self, x_BD: Tensor, h_BR: Tensor) -> tuple[Tensor, Tensor]:
        """(s, h) after one token; h may be written in place."""
        s_BR = convolution_step(h_BR, x_BD, self.in_proj, (INPUT_EPS, STATE_EPS, EPS))
        if s_BR is not None:
            return s_BR, h_BR
        a, u, s = normed_projection(x_BD, self.in_proj.double(), INPUT_EPS).chunk(3, dim=-1)
        new_BR = torch.exp(-softplus(a)) * h_BR + u
        return scaled(s, new_BR).to(h_BR.dtype), new_BR.to(h_BR.dtype)
