"""What the head of a series model outputs for each future step, and how it is converted to the units of the series.

point: a value. quantile: nine values, from level 0.1 to 0.9. student-t: location, scale and degrees of freedom (above
2, so that the variance exists).

Shape letters: B batch, C channels, H horizon, K values per step.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

HeadKind = Literal["point", "student-t", "quantile"]
OUTPUTS: dict[HeadKind, int] = {"point": 1, "quantile": 9, "student-t": 3}
SMALLEST_SCALE = 1e-6


def in_units(kind: HeadKind, y_BCHK: Tensor, gain_B1C: Tensor, shift_B1C: Tensor) -> Tensor:
    """A head's raw outputs y as a forecast of `gain · y + shift`: `[B, H, C]` for points, else `[B, H, C, K]`."""
    y_BHCK = y_BCHK.transpose(1, 2)
    values_BHCK = y_BHCK * gain_B1C.unsqueeze(-1) + shift_B1C.unsqueeze(-1)
    if kind == "point":
        return values_BHCK.squeeze(-1)
    if kind == "quantile":
        return values_BHCK
    scale_BHC = (F.softplus(y_BHCK[..., 1]) * gain_B1C.abs()).clamp_min(SMALLEST_SCALE)
    return torch.stack([values_BHCK[..., 0], scale_BHC, 2 + F.softplus(y_BHCK[..., 2])], dim=-1)
