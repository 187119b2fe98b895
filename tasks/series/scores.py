"""The scores of forecasts, as sums and counts: squared and absolute errors, and for distributions CRPS and MASE as
GluonTS defines them.

CRPS is the mean weighted quantile loss: `Σ 2 |(y − ŷ_q) (1[y ≤ ŷ_q] − q)| / Σ |y|`, averaged over nine levels q. MASE
divides each absolute error by the series' mean absolute seasonal difference over the training part, so that it does not
depend on the look-back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.base import HeadName, Metric
from tasks.series.heads import LEVELS, point_of, quantile_losses, quantiles_of


@dataclass(frozen=True)
class Units:
    """Converts standardised values to the units of the scores; tensors that broadcast to `[B, H, C]`.

    seasonal_error: mean |x_t − x_{t − season}|, standardised; MASE leaves out series where it is ≤ 0. scale, shift: of
    the original values `scale · x + shift`, for a CRPS of those.
    """

    seasonal_error: Tensor | None = None
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0


def seasonal_error(train_NC: Tensor, season: int) -> Tensor | None:
    """`[C]`; None if no season is known or the training part is shorter than one."""
    if not 0 < season < len(train_NC):
        return None
    return (train_NC[season:] - train_NC[:-season]).abs().mean(0)


def metrics(head: HeadName, *, scaled: bool, original: bool = False) -> tuple[Metric, ...]:
    """The reported metrics, the primary one first. scaled: whether MASE is among them; original: CRPS is computed on
    the original values.
    """
    errors = (
        Metric("mse", higher_is_better=False, unit="standardised²"),
        Metric("mae", higher_is_better=False, unit="standardised"),
    )
    mase = (Metric("mase", higher_is_better=False, unit="of a season's change"),) if scaled else ()
    if head == "point":
        return (*errors, *(mase if original else ()), Metric("loss", higher_is_better=False, unit="standardised²"))
    crps = Metric("crps", higher_is_better=False, unit="of the mean absolute value", digits=4)
    return (crps, *mase, *errors, Metric("loss", higher_is_better=False, unit="mean quantile loss, standardised"))


def sums(head: HeadName, outputs: Tensor, targets_BHC: Tensor, units: Units) -> dict[str, tuple[float, float]]:
    """Sums and counts of a batch, all in double precision."""
    point_BHC = point_of(head, outputs)
    error_BHC = point_BHC - targets_BHC
    count = float(error_BHC.numel())
    found = {"mse": (error_BHC.square().sum().item(), count), "mae": (error_BHC.abs().sum().item(), count)}
    if units.seasonal_error is not None:
        season = units.seasonal_error.to(error_BHC).expand_as(error_BHC)
        counts = season > 0
        found["mase"] = ((error_BHC.abs() / season)[counts].sum().item(), float(counts.sum().item()))
    if head != "point":
        losses_BHC = quantile_losses(quantiles_of(head, outputs), targets_BHC).sum(-1) / len(LEVELS)
        found["loss"] = (losses_BHC.sum().item(), count)
        original = targets_BHC * units.scale + units.shift
        found["crps"] = ((losses_BHC * units.scale).sum().item(), original.abs().sum().item())
    return found


def row_sums(head: HeadName, outputs: Tensor, targets_BHC: Tensor, units: Units) -> Tensor:
    """The sum and the count of the primary metric of each window, `[B, 2]`, in double precision."""
    if head == "point":
        errors_BHC = (point_of(head, outputs) - targets_BHC).square()
        return torch.stack([errors_BHC.sum((1, 2)), torch.ones_like(errors_BHC).sum((1, 2))], -1)
    losses_BHC = quantile_losses(quantiles_of(head, outputs), targets_BHC).sum(-1) / len(LEVELS)
    original_BHC = targets_BHC * units.scale + units.shift
    return torch.stack([(losses_BHC * units.scale).sum((1, 2)), original_BHC.abs().sum((1, 2))], -1)


def summary(head: HeadName, totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The metrics of a split. A point's `loss` is its squared error."""
    figures = {name: total / count if count else math.nan for name, (total, count) in totals.items()}
    return {**figures, "loss": figures["mse"]} if head == "point" else figures
