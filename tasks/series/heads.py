"""The kinds of forecast, points, quantiles and Student-t distributions, with the loss of each.

A model outputs `[B, H, C]` for points, `[B, H, C, 9]` for the quantiles of `LEVELS`, and `[B, H, C, 3]` for (location,
scale > 0, degrees of freedom > 2). A model that forecasts only points, like the seasonal-naive baseline, can be
compared with the others: all its quantiles equal its point.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tasks.base import HeadName

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # GluonTS's usual nine
NODES = 8193  # of the table of the t distribution's quantiles; linear interpolation is exact to 1e-6 of the scale
LEAST_DEGREES = 2.0


def loss_of(head: HeadName, outputs: Tensor, targets_BHC: Tensor) -> Tensor:
    """The training loss, a mean: squared error, mean quantile loss, or the Student-t's negative log-likelihood."""
    match head:
        case "point":
            return F.mse_loss(outputs, targets_BHC)
        case "quantile":
            return quantile_losses(quantiles_of(head, outputs), targets_BHC).mean()
        case "student-t":
            location, scale, degrees = outputs.unbind(-1)
            return (
                -torch.distributions.StudentT(degrees, location, scale, validate_args=False)
                .log_prob(targets_BHC)
                .mean()
            )


def is_points(outputs: Tensor) -> bool:
    return outputs.dim() == 3


def point_of(head: HeadName, outputs: Tensor) -> Tensor:
    """The value `[B, H, C]` that squared and absolute errors are computed from: the median, which is also the mean of a
    Student-t.
    """
    if is_points(outputs):
        return outputs
    return outputs[..., LEVELS.index(0.5)] if head == "quantile" else outputs[..., 0]


def quantiles_of(head: HeadName, outputs: Tensor) -> Tensor:
    """`[B, H, C, 9]` at `LEVELS`."""
    if is_points(outputs):
        return outputs.unsqueeze(-1).expand(*outputs.shape, len(LEVELS))
    if head == "quantile":
        return outputs
    location, scale, degrees = outputs.unbind(-1)
    return location.unsqueeze(-1) + scale.unsqueeze(-1) * student_quantiles(degrees)


def quantile_losses(quantiles_BHCQ: Tensor, targets_BHC: Tensor) -> Tensor:
    """`2 |(y − ŷ_q) (1[y ≤ ŷ_q] − q)|`, `[B, H, C, 9]`: its mean over all levels is the continuous ranked probability
    score.
    """
    error = targets_BHC.unsqueeze(-1) - quantiles_BHCQ
    levels = torch.tensor(LEVELS, dtype=error.dtype, device=error.device)
    return 2 * (error * ((error <= 0).to(error.dtype) - levels)).abs()


def student_quantiles(degrees: Tensor) -> Tensor:
    """Quantiles at `LEVELS` of the standard t distribution with more than 2 degrees of freedom, `[..., 9]`.

    There is no closed form, and the exact inverse costs microseconds per value, so a table over 1/degrees is used.
    """
    table = torch.from_numpy(_student_table()).to(degrees)
    place = (LEAST_DEGREES / degrees).clamp(0, 1) * (NODES - 1)
    left = place.floor().clamp(max=NODES - 2)
    share = (place - left).unsqueeze(-1)
    index = left.long()
    return table[index] * (1 - share) + table[index + 1] * share


@cache
def _student_table() -> NDArray[np.float64]:
    """`[NODES, 9]`; row i is at `LEAST_DEGREES / degrees = i / (NODES − 1)`, row 0 the normal distribution's."""
    from scipy.special import ndtri, stdtrit

    inverse = np.arange(1, NODES) / (NODES - 1) / LEAST_DEGREES
    upper = [level for level in LEVELS if level > 0.5]
    above = np.stack([np.concatenate([[ndtri(level)], stdtrit(1 / inverse, level)]) for level in upper], axis=1)
    return np.concatenate([-above[:, ::-1], np.zeros((NODES, 1)), above], axis=1)
