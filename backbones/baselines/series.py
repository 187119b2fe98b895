"""What every forecaster must beat: repeating the last season, and a ridge regression. Both have a closed form.

Shape letters: B batch, C channels, N look-back, H horizon, R = B·C sequences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from backbones.baselines.base import PREFIX, Baseline, BaselineError, BaselineOptions, ReferenceShape, SeriesSizes

Windows = Iterable[tuple[Tensor, Tensor]]  # pairs of look-back `[B, N, C]` and target `[B, H, C]`


@runtime_checkable
class ClosedForm(Protocol):
    """A model that is fitted in one pass over all training windows, without gradients."""

    def solve(self, windows: Windows) -> int:
        """Fits the model; returns the number of windows."""


class SeasonalNaive(nn.Module):
    """The forecast is the value one or more whole seasons before: nothing is learned."""

    def __init__(self, look_back: int, horizon: int, season: int) -> None:
        """`season` is in steps, at most the look-back."""
        super().__init__()
        assert 1 <= season <= look_back
        self.season, self.horizon = season, horizon

    def solve(self, windows: Windows) -> int:
        return 0

    def forward(self, x_BNC: Tensor) -> Tensor:
        repeats = -(-self.horizon // self.season)
        return x_BNC[:, -self.season :].repeat(1, repeats, 1)[:, : self.horizon]


class Ridge(nn.Module):
    """`y − x_N = W (x − x_N) + b`, one W for all channels, from the normal equations `(ZᵀZ + α I) W = ZᵀY` in double
    precision.

    x_N is a window's last value; the intercept b is the coefficient of a constant 1 and is penalised like the others.
    """

    def __init__(self, look_back: int, horizon: int, penalty: float) -> None:
        super().__init__()
        self.penalty = penalty
        self.weight = nn.Parameter(torch.zeros(look_back + 1, horizon), requires_grad=False)

    @torch.no_grad()
    def solve(self, windows: Windows) -> int:
        n = self.weight.shape[0]
        gram = self.penalty * torch.eye(n, dtype=torch.float64)
        cross, seen = torch.zeros(n, self.weight.shape[1], dtype=torch.float64), 0
        for x_BNC, y_BHC in windows:
            z_RN = self._regressors(x_BNC.double())
            y_RH = (y_BHC.double() - x_BNC[:, -1:].double()).transpose(1, 2).flatten(0, 1)
            gram += (z_RN.T @ z_RN).cpu()
            cross += (z_RN.T @ y_RH).cpu()
            seen += len(x_BNC)
        self.weight.copy_(torch.linalg.solve(gram, cross))
        return seen

    def forward(self, x_BNC: Tensor) -> Tensor:
        y_RH = self._regressors(x_BNC) @ self.weight
        return y_RH.unflatten(0, (len(x_BNC), -1)).transpose(1, 2) + x_BNC[:, -1:]

    def _regressors(self, x_BNC: Tensor) -> Tensor:
        """`[B·C, N + 1]`: windows minus their last value, and a 1."""
        z_RN = (x_BNC - x_BNC[:, -1:]).transpose(1, 2).flatten(0, 1)
        return torch.cat([z_RN, torch.ones_like(z_RN[:, :1])], dim=1)


class SeasonalNaiveOptions(BaselineOptions):
    season: int = Field(default=0, ge=0, description="steps of a season; 0: the task's (a day, or a week of days)")


def _seasonal_naive(sizes: SeriesSizes, options: SeasonalNaiveOptions, shape: ReferenceShape) -> nn.Module:
    season = options.season or sizes.season
    if not 1 <= season <= sizes.look_back:
        reason = (
            f"a season of {season} steps does not fit into a look-back of {sizes.look_back}"
            if season
            else "this task has no known season"
        )
        raise BaselineError(
            f"{PREFIX}seasonal-naive: {reason}; choose one from 1 to {sizes.look_back}: --set mixer.season=…"
        )
    return SeasonalNaive(sizes.look_back, sizes.horizon, season)


class RidgeOptions(BaselineOptions):
    penalty: float = Field(
        default=1.0, gt=0, description="α of the penalty on the squared coefficients, over sums of all training windows"
    )


def _ridge(sizes: SeriesSizes, options: RidgeOptions, shape: ReferenceShape) -> nn.Module:
    return Ridge(sizes.look_back, sizes.horizon, options.penalty)


SEASONAL_NAIVE = Baseline("forecasting", SeasonalNaiveOptions, _seasonal_naive, closed_form=True)
RIDGE = Baseline("forecasting", RidgeOptions, _ridge, closed_form=True)
