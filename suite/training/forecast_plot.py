"""Pictures of forecasts against what came: a few test windows of the selected model, after its record is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.training.evaluate import autocast, eval_mode
from tasks.series.forecasting import ForecastTask
from tasks.series.heads import LEVELS, is_points, quantiles_of

PICTURE = "forecasts.png"
WINDOWS, CHANNELS = 3, 3  # at most, spread evenly over the test part and over the series


@torch.no_grad()
def draw_forecasts(model: nn.Module, task: ForecastTask, device: torch.device, precision: str, path: Path) -> Path:
    """A row a window, a column a series, in standardised values: the end of what was read, what came, and the
    forecast.
    """
    from matplotlib.figure import Figure

    places = np.unique(np.linspace(0, task.n_examples("test") - 1, WINDOWS).astype(np.int64))
    batch = task.windows("test", places)
    with eval_mode(model), autocast(device, precision):
        outputs = model(batch.inputs.to(device)).float().cpu()
    forecast_BHC = task.point(outputs)
    band_BHCQ = None if is_points(outputs) else quantiles_of(task.options.head, outputs)[..., [0, -1]]
    channels = np.unique(np.linspace(0, forecast_BHC.shape[2] - 1, CHANNELS).astype(np.int64)).tolist()
    figure = Figure(figsize=(4.2 * len(channels), 2.2 * len(places) + 0.4), layout="constrained")
    axes = figure.subplots(len(places), len(channels), squeeze=False)
    for row, place in enumerate(places.tolist()):
        for column, channel in enumerate(channels):
            at = (row, slice(None), channel)
            _panel(
                axes[row][column],
                batch.inputs[at],
                batch.targets[at],
                forecast_BHC[at],
                None if band_BHCQ is None else band_BHCQ[at],
            )
            axes[row][column].set_title(f"test window {place}, series {channel + 1}", fontsize=8)
    axes[0][0].legend(fontsize=7)
    figure.suptitle(
        f"{task.name}: forecasts of {forecast_BHC.shape[1]} steps against what came (standardised)", fontsize=9
    )
    figure.savefig(path, dpi=110)
    return path


def _panel(axis: Any, read_N: Tensor, came_H: Tensor, forecast_H: Tensor, band_H2: Tensor | None) -> None:
    """One series of one window; step 0 is the last one that was read. The band holds what a distribution puts between
    its ends.
    """
    horizon = len(came_H)
    shown = read_N[-2 * horizon :]
    axis.plot(np.arange(1 - len(shown), 1), shown.numpy(), color="0.6", linewidth=0.9, label="read")
    axis.plot(np.arange(1, horizon + 1), came_H.numpy(), color="black", linewidth=0.9, label="came")
    axis.plot(np.arange(1, horizon + 1), forecast_H.numpy(), color="C3", linewidth=1.1, label="forecast")
    if band_H2 is not None:
        label = f"{LEVELS[0]:g} to {LEVELS[-1]:g}"
        axis.fill_between(
            np.arange(1, horizon + 1), band_H2[:, 0].numpy(), band_H2[:, 1].numpy(), color="C3", alpha=0.2, label=label
        )
