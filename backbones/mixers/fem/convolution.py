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
from torch.nn.functional import layer_norm, softplus

from backbones.mixers.priors.base import normal_
from kernels.decoding.convolutions import convolution_step
from kernels.gates import EPS, rms
from kernels.projection import normed_projection
from kernels.scan import diagonal_scan

INPUT_EPS = 1e-5  # of LayerNorm(x)
STATE_EPS = 1e-5  # of LayerNorm(h), as in the authors' code


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

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(decay a, input W_u z, scale RMS(softplus(W_s z))), each `[…, R]`, in fp64.

        LayerNorm(h) over two channels enlarges rounding up to STATE_EPS^(−1/2) times in gradients: in fp32 those of
        `in_proj` were up to 1.6e-4 of the largest off. R is at most a few channels, so fp64 costs little.
        """
        a, u, s = normed_projection(x, self.in_proj.double(), INPUT_EPS).chunk(3, dim=-1)
        return torch.exp(-softplus(a)), u, rms(softplus(s))

    def factors(self, x_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """s `[B, T, R]`, in fp32 at least."""
        a, u, s = self._inputs(x_BTD)
        if mask_BT is not None:  # padded tokens are skipped
            a, u = a.masked_fill(~mask_BT[..., None], 1.0), u.masked_fill(~mask_BT[..., None], 0.0)
        if self.causal:
            h = diagonal_scan(a, u)
        else:
            first = self.rank - self.rank // 2
            forward = diagonal_scan(a[..., :first], u[..., :first])
            h = torch.cat((forward, diagonal_scan(a[..., first:], u[..., first:], reverse=True)), dim=-1)
        return _scaled(s, h).to(torch.promote_types(x_BTD.dtype, torch.float32))

    def step(self, x_BD: Tensor, h_BR: Tensor) -> tuple[Tensor, Tensor]:
        """(s, h) after one token; h may be written in place."""
        s_BR = convolution_step(h_BR, x_BD, self.in_proj, (INPUT_EPS, STATE_EPS, EPS))
        if s_BR is not None:
            return s_BR, h_BR
        a, u, s = self._inputs(x_BD)
        new_BR = a * h_BR + u
        return _scaled(s, new_BR).to(h_BR.dtype), new_BR.to(h_BR.dtype)


def _scaled(s: Tensor, h: Tensor) -> Tensor:
    return s * layer_norm(h, h.shape[-1:], eps=STATE_EPS)
