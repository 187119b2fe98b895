"""`suite forecasts`: the test forecasts of a finished run, in original units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.cli import options as opt
from suite.cli.output import print_json, print_mapping

if TYPE_CHECKING:
    from tasks.base import Task


def forecasts(
    run_id: opt.Run, data_dir: opt.DataDir = None, device: opt.Device = "auto", as_json: opt.Json = False
) -> None:
    """Saves a run's test forecasts in the run's folder, and their errors in original units by series and step.

    `suite forecasts etth1-fem`
    """
    found = saved(run_id, data_dir, device)
    print_json(found) if as_json else print_mapping(found)


def saved(run: str, data_dir: Path | None, device: str) -> dict[str, Any]:
    """Forecasts the test windows with the selected checkpoint of a run, and writes the two files.

    Args:
        run: its id, or its folder.
        data_dir: where its data are now; None: where they were.
        device: `auto`, `cpu` or `cuda:N`.

    Returns:
        The run's id and the paths of the files.

    Raises:
        UserError: the run is unknown, not of a forecasting task, without weights, or its data have changed.
        DataError: the data are missing or damaged.
    """
    from suite.loading import load
    from tasks.series.forecasting import ForecastTask
    from tasks.series.saved_forecasts import save_forecasts

    def unsuitable(task: Task) -> str:
        return "" if isinstance(task, ForecastTask) else "choose a run of a forecasting task"

    found = load(run, device=device, data_dir=data_dir, check=unsuitable)
    assert isinstance(found.task, ForecastTask)
    batch_size = found.config.train.eval_batch_size
    values, errors = save_forecasts(found.task, found.predict, found.folder, batch_size)
    return {"run": found.folder.name, "forecasts": str(values), "errors": str(errors)}
