"""Shared by the one-pass free energies: which values need no shift, and how their exponentials are computed.

A read is one pass over `[v, w]` with `w = exp(βv)`, and `F = log(E_p[w])/β`. Without a shift that is exact in a
range of |βv|. Where β < SMALL_BETA it cancels as β → 0, so there `w = expm1(βv)` and F ends in log1p, exact in a
smaller range. The choice depends on the parameter β, never on the data: no token changes how another is computed.

Rows that see a value out of range are computed apart: those of fp32 in the same pass in fp64, whose range is WIDE, what
is beyond that by the exact read of the prior. (That of channelwise priors is cheap: they have no pass in fp64.)
Training at high rates passes the fp32 range often and by little.

In all functions, beta_Hd may be any shape that broadcasts with the values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RANGE = 30.0  # of |βv| without a shift; at 40 a flash pass's fp32 gradients overflow inside a block
SMALL_BETA = 0.5  # below: expm1 and log1p
SMALL_RANGE = 4.0  # of |βv| where a mean of expm1 keeps its digits


@dataclass(frozen=True)
class Reach:
    """What one pass serves.

    usual: |βv| up to which exponentials need no shift.
    small: the same where β < SMALL_BETA: a mean of expm1 keeps its digits.
    faint: log φ(k) of linear priors below which the weight of a near token may vanish next to a decayed one: with the
        least exponent ℓ of a decay (`kernels/cpu/elementary.h`), `e^{ℓ + usual}` is little next to `e^{faint − usual}`.
    """

    usual: float = RANGE
    small: float = SMALL_RANGE
    faint: float = -15.0

    def limit(self, beta_Hd: Tensor) -> Tensor:
        """The largest |βv| without a shift, for each channel."""
        return torch.where(beta_Hd < SMALL_BETA, self.small, self.usual)


#: Of a pass in the dtype of its values.
NARROW = Reach()
#: Of a pass in fp64 that is rounded to fp32: next to 1, e^{−18} keeps 8 digits, and squares of e^{250} are finite.
WIDE = Reach(usual=250.0, small=18.0, faint=-150.0)


def in_range(v_BTHd: Tensor, beta_Hd: Tensor) -> bool:
    """Whether no value needs a shift; one reduction over v. (On the meta device there are no values: True.)"""
    if v_BTHd.is_meta:
        return True
    with torch.no_grad():
        top_Hd = torch.maximum(v_BTHd.amax((0, 1)), -v_BTHd.amin((0, 1)))
        return bool((top_Hd * beta_Hd <= NARROW.limit(beta_Hd)).all())


def out_of_range(v_BTHd: Tensor, beta_Hd: Tensor, reach: Reach = NARROW) -> Tensor:
    """`[B, T, H, d]`: which values need a shift."""
    with torch.no_grad():
        return ~((v_BTHd * beta_Hd).abs() <= reach.limit(beta_Hd))


def first_row(bad_BT___: Tensor, causal: bool) -> Tensor:
    """The first row that sees a bad token, for every sequence `[B, …]`; T where none does.

    If not causal, the first row sees all tokens.
    """
    T = bad_BT___.shape[1]
    found = bad_BT___.any(1)
    return torch.where(found, bad_BT___.int().argmax(1) if causal else 0, T)


def carried(v_BTHd: Tensor, beta_Hd: Tensor, clamped: Reach | None) -> Tensor:
    """w. `clamped`: values out of this range are clamped, for rows that are replaced anyway."""
    u = v_BTHd * beta_Hd
    if clamped:
        top_Hd = clamped.limit(beta_Hd)
        u = torch.clamp(u, -top_Hd, top_Hd)
    return torch.where(beta_Hd < SMALL_BETA, u.expm1(), u.exp()).to(v_BTHd.dtype)


def log_of(mean_BTHd: Tensor, beta_Hd: Tensor) -> Tensor:
    """log E_p[exp(βv)] from E_p[w]. Both branches stay finite, in backward too."""
    small = beta_Hd < SMALL_BETA
    return torch.where(small, torch.where(small, mean_BTHd, 0.0).log1p(), torch.where(small, 1.0, mean_BTHd).log())


def one_pass(
    read: Callable[[Tensor], Tensor], v_BTHd: Tensor, beta_Hd: Tensor, clamped: Reach | None = None
) -> tuple[Tensor, Tensor]:
    """(E_p[v], F) by one `read`, the mean of every channel of the last dimension."""
    mu, mean = read(torch.cat((v_BTHd, carried(v_BTHd, beta_Hd, clamped)), dim=-1)).chunk(2, dim=-1)
    return mu, (log_of(mean, beta_Hd) / beta_Hd).to(v_BTHd.dtype)


def replaced(fast: Tensor, exact: Tensor, first: Tensor) -> Tensor:
    """`fast` before the row `first` of each sequence, `exact` from there on; one `first` per head or per channel."""
    row = torch.arange(fast.shape[1], device=fast.device).view(-1, *[1] * (first.dim() - 1))
    chosen = row >= first[:, None]
    return torch.where(chosen if chosen.dim() == fast.dim() else chosen[..., None], exact.to(fast.dtype), fast)
