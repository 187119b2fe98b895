"""What lag mixing does to one block of rows, and its adjoints. `kernels.hyper.lag_mixing` puts the blocks together.

Buffers are `[H, B, R, P]` in the layout of `kernels.numerics.lag_layout`; M = B·R rows, C columns, r the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.numerics.lag_layout import NORM_EPS, Block, Layout, reversed_table


@dataclass(frozen=True)
class Tables:
    """A mixing with its tables in the order of columns. `scale` is 1 + p; the control is selected by rows."""

    first_HCr: Tensor
    second_HCr: Tensor
    scale_HC: Tensor
    control_HBTr: Tensor

    @classmethod
    def read(cls, flat: Sequence[Tensor], layout: Layout) -> Tables:
        """From (first, second, diagonal, control), as `LagMixing` has them."""
        first, second, diagonal = (reversed_table(t, layout) for t in flat[:3])
        return cls(first, second, diagonal + 1.0, flat[3])

    def zeros(self) -> Tables:
        """Zeros, to which the gradients of these tables are added."""
        return Tables(
            *(torch.zeros_like(t) for t in (self.first_HCr, self.second_HCr, self.scale_HC, self.control_HBTr))
        )

    def write(self, layout: Layout) -> list[Tensor]:
        """The inverse of `read`, for gradients (that of 1 + p is p's)."""
        return [
            *(reversed_table(t, layout) for t in (self.first_HCr, self.second_HCr, self.scale_HC)),
            self.control_HBTr,
        ]

    def control(self, block: Block) -> Tensor:
        """`[H, M, r]`."""
        return self.control_HBTr[:, :, block.here].flatten(1, 2)


def mix(tables: Tables, block: Block, y_HBRP: Tensor, out_HBRP: Tensor) -> Tensor:
    """`out = y (1 + p) + ((y·first) ⊙ control) secondᵀ`; returns y·first `[H, M, r]`. `out` may be `y`."""
    lags, y_HMC, out_HMC = block.lags(), block.by_lag(y_HBRP), block.by_lag(out_HBRP)
    low_HMr = torch.bmm(y_HMC, tables.first_HCr[:, lags])
    torch.mul(y_HMC, tables.scale_HC[:, None, lags], out=out_HMC)
    out_HMC.baddbmm_(low_HMr * tables.control(block), tables.second_HCr[:, lags].transpose(1, 2))
    return low_HMr


def mix_adjoint(tables: Tables, sums: Tables, block: Block, g_HBRP: Tensor, y_HBRP: Tensor, low_HMr: Tensor) -> None:
    """From the gradient of `mix`'s output to that of its input, in place; adds the tables' gradients to `sums`.

    The gradient of the output is zero in hidden columns.
    """
    lags, g_HMC, y_HMC = block.lags(), block.by_lag(g_HBRP), block.by_lag(y_HBRP)
    control_HMr = tables.control(block)
    up_HMr = torch.bmm(g_HMC, tables.second_HCr[:, lags])
    down_HMr = up_HMr * control_HMr
    sums.second_HCr[:, lags].baddbmm_(g_HMC.transpose(1, 2), low_HMr * control_HMr)
    sums.first_HCr[:, lags].baddbmm_(y_HMC.transpose(1, 2), down_HMr)
    sums.scale_HC[:, lags].add_((g_HMC * y_HMC).sum(1))
    heads, batch, rows, _ = g_HBRP.shape
    sums.control_HBTr[:, :, block.here] = (up_HMr * low_HMr).view(heads, batch, rows, -1)
    g_HMC.mul_(tables.scale_HC[:, None, lags]).baddbmm_(down_HMr, tables.first_HCr[:, lags].transpose(1, 2))


@dataclass(frozen=True)
class Scores:
    """One score set of a block: before its mixing, after it, and the low-rank product in between."""

    plain_HBRP: Tensor
    mixed_HBRP: Tensor
    low_HMr: Tensor | None


def scores(
    block: Block, q_HBTd: Tensor, k_HBTd: Tensor, tables: Tables | None, mask_BT: Tensor | None, keep: bool
) -> Scores:
    """The scores of a block, mixed in place unless `keep`. Masked keys are already zero in k."""
    plain = block.buffer(q_HBTd)
    torch.bmm(rows_of(q_HBTd, block), keys_of(k_HBTd, block).transpose(1, 2), out=block.by_key(plain))
    block.hide(plain)
    if tables is None:
        return Scores(plain, plain, None)
    mixed = block.buffer(q_HBTd) if keep else plain
    low = mix(tables, block, plain, mixed)
    block.hide(mixed)
    if mask_BT is not None:
        by_key_HBRn = block.by_key(mixed).unflatten(0, mixed.shape[:2])
        by_key_HBRn.masked_fill_(~mask_BT[:, None, : block.keys], 0.0)
    return Scores(plain, mixed, low)


def rows_of(x_HBTw: Tensor, block: Block) -> Tensor:
    """The block's rows, `[H·B, R, w]`."""
    return x_HBTw[:, :, block.here].flatten(0, 1)


def keys_of(x_HBTw: Tensor, block: Block) -> Tensor:
    """The block's keys, `[H·B, n, w]`: a view of contiguous x."""
    return x_HBTw[:, :, : block.keys].flatten(0, 1)


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ), several times faster than PyTorch's on a CPU. Exponents stop at −80: denormals are slow."""
    return x.abs().clamp_max_(80.0).neg_().exp_().log1p_().add_(x.clamp_min(0.0))


def inverse_norm(block: Block, gate_HBRP: Tensor) -> Tensor:
    """1/sqrt(Σ h² + NORM_EPS) of each row, `[H, B, R, 1]`."""
    norm_HM1 = torch.linalg.vector_norm(block.by_lag(gate_HBRP), dim=-1, keepdim=True)
    return norm_HM1.square_().add_(NORM_EPS).rsqrt_().view(*gate_HBRP.shape[:3], 1)


def activate(block: Block, gate_HBRP: Tensor, soft_HMC: Tensor | None, out_HBRP: Tensor) -> None:
    """ReLU of the gate's scores, times `soft`, the softplus of the scale's; not normalised. `out` may be the gate."""
    torch.clamp_min(block.by_lag(gate_HBRP), 0.0, out=block.by_lag(out_HBRP))
    if soft_HMC is not None:
        block.by_lag(out_HBRP).mul_(soft_HMC)


def activate_adjoint(
    block: Block, g_HBRP: Tensor, pull_HM1: Tensor, gate_HBRP: Tensor, soft_HMC: Tensor | None
) -> Tensor | None:
    """From the gradient of `activate`'s output to that of the gate's scores, in place; returns that of the scale's.

    The gradient of the norm is −pull·h, `pull` one number per row. `soft` is overwritten.
    """
    g, gate = block.by_lag(g_HBRP), block.by_lag(gate_HBRP)
    g_scale_HBRP: Tensor | None = None
    g.mul_(gate > 0.0)
    if soft_HMC is not None:
        g_scale_HBRP = block.buffer(g_HBRP).zero_()
        into = torch.mul(g, gate, out=block.by_lag(g_scale_HBRP))
        g.mul_(soft_HMC)
        into.mul_(soft_HMC.neg_().expm1_().neg_())  # sigmoid(x) = 1 − exp(−softplus(x))
    g.addcmul_(gate, pull_HM1, value=-1.0)
    return g_scale_HBRP
