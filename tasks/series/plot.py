"""Pictures of forecasts and the observed values of a few test windows.

Shape letters: W windows, N look-back, H horizon, C series.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tasks.batches import Batch
from tasks.series.heads import LEVELS

CHANNELS = 3  # series per window, at most; spread evenly


def draw_forecasts(
    title: str, batch: Batch, places: Sequence[int], forecast_WHC: Tensor, band_WHC2: Tensor | None, path: Path
) -> Path:
    """One row per window, one column per series, in standardised values: the end of the look-back, the observed values
    and the forecast. `places` names the windows; `band_WHC2` is the interval that a distribution predicts.
    """
    from matplotlib.figure import Figure

    channels = np.unique(np.linspace(0, forecast_WHC.shape[2] - 1, CHANNELS).astype(np.int64)).tolist()
    figure = Figure(figsize=(4.2 * len(channels), 2.2 * len(places) + 0.4), layout="constrained")
    axes = figure.subplots(len(places), len(channels), squeeze=False)
    for row, place in enumerate(places):
        for column, channel in enumerate(channels):
            at = (row, slice(None), channel)
            band_H2 = None if band_WHC2 is None else band_WHC2[at]
            _panel(axes[row][column], batch.inputs[at], batch.targets[at], forecast_WHC[at], band_H2)
            axes[row][column].set_title(f"test window {place}, series {channel + 1}", fontsize=8)
    axes[0][0].legend(fontsize=7)
    figure.suptitle(f"{title}: forecasts of {forecast_WHC.shape[1]} steps and observed values", fontsize=9)
    figure.savefig(path, dpi=110)
    return path


def _panel(axis: Any, look_back_N: Tensor, observed_H: Tensor, forecast_H: Tensor, band_H2: Tensor | None) -> None:
    """One series of one window; step 0 is the last one of the look-back."""
    horizon = len(observed_H)
    shown, steps = look_back_N[-2 * horizon :], np.arange(1, horizon + 1)
    axis.plot(np.arange(1 - len(shown), 1), shown.numpy(), color="0.6", linewidth=0.9, label="look-back")
    axis.plot(steps, observed_H.numpy(), color="black", linewidth=0.9, label="observed")
    axis.plot(steps, forecast_H.numpy(), color="C3", linewidth=1.1, label="forecast")
    if band_H2 is not None:
        label = f"{LEVELS[0]:g} to {LEVELS[-1]:g}"
        axis.fill_between(steps, band_H2[:, 0].numpy(), band_H2[:, 1].numpy(), color="C3", alpha=0.2, label=label)
