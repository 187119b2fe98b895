"""All test forecasts of a model in a file, and their errors in the series' own units by series and step.

Shape letters: B windows of a batch, W all windows, H horizon, C series of a window, S series of the data set.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.series.forecasting import ForecastTask
from tasks.series.heads import LEVELS, is_points, quantiles_of

FORECASTS, ERRORS = "forecasts.npz", "forecast_errors.csv"
ALL = "all"


def save_forecasts(
    task: ForecastTask, predict: Callable[[Tensor], Tensor], folder: Path, batch_size: int
) -> tuple[Path, Path]:
    """Forecasts every scored test window and writes two files.

    Args:
        task: a loaded task.
        predict: a batch's inputs to the model's outputs, fp32, both on the CPU.
        folder: where the files are written.
        batch_size: windows per forecast.

    Returns:
        `forecasts.npz` with `forecast` and `observed` `[W, H, C]`, `series` `[W, C]` (an index into `names`), `names`
        `[S]`, and for distributions `quantiles` `[W, H, C, 9]` at `levels`, all in original units; and
        `forecast_errors.csv` with `series`, `step`, `count`, `mse`, `mae` and `bias` in original units, where `all` is
        the mean over series or steps.
    """
    found: dict[str, list[NDArray[np.float64]]] = {"forecast": [], "observed": [], "series": [], "quantiles": []}
    for batch in task.eval_batches("test", batch_size):
        outputs = predict(batch.inputs).double()
        scale, shift = task.original_units(batch)
        found["forecast"].append((task.point(outputs) * scale + shift).numpy())
        found["observed"].append((batch.targets.double() * scale + shift).numpy())
        found["series"].append(task.series_of(batch).numpy())
        if not is_points(outputs):
            quantiles = quantiles_of(task.options.head, outputs) * scale[..., None] + shift[..., None]
            found["quantiles"].append(quantiles.numpy())
    arrays = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    names = task.series_names()
    saved: dict[str, Any] = {**arrays, "names": np.array(names)}
    saved |= {"levels": np.array(LEVELS)} if "quantiles" in arrays else {}
    np.savez_compressed(folder / FORECASTS, **saved)
    _write_errors(folder / ERRORS, names, arrays["forecast"] - arrays["observed"], arrays["series"])
    return folder / FORECASTS, folder / ERRORS


def _write_errors(path: Path, names: list[str], error_WHC: NDArray[np.float64], series_WC: NDArray[np.float64]) -> None:
    error_NH = error_WHC.transpose(0, 2, 1).reshape(-1, error_WHC.shape[1])  # one row per window and series
    owner_N = series_WC.reshape(-1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("series", "step", "count", "mse", "mae", "bias"))
        for index, name in [*enumerate(names), (None, ALL)]:
            own_NH = error_NH if index is None else error_NH[owner_N == index]
            if len(own_NH):
                steps = [(step + 1, own_NH[:, step]) for step in range(own_NH.shape[1])]
                for step, errors in [*steps, (ALL, own_NH.reshape(-1))]:
                    figures = (np.square(errors).mean(), np.abs(errors).mean(), errors.mean())
                    writer.writerow((name, step, errors.size, *(repr(float(figure)) for figure in figures)))
