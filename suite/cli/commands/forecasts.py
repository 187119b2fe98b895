"""`suite forecasts`: the test forecasts of a finished run, in original units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suite.cli import options as opt
from suite.cli.output import print_json, print_mapping
from suite.errors import UserError


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
    import torch

    import tasks
    from suite.console import warn
    from suite.models.written import resolve_written
    from suite.records import runs_folder
    from suite.training import checkpoint
    from suite.training.devices import pick_device
    from suite.training.evaluate import autocast, eval_mode
    from tasks.series.forecasting import ForecastTask
    from tasks.series.saved_forecasts import save_forecasts

    folder, chosen = runs_folder.find_run(run), pick_device(device)
    written = runs_folder.read_run(folder)
    resolved = resolve_written(written["config"])
    config, candidate = resolved.config, resolved.candidate
    place = data_dir or (Path(written["data_dir"]) if written["data_dir"] else None)
    task = tasks.get(config.task)(config.data, place)
    if not isinstance(task, ForecastTask):
        raise UserError(f"run {folder.name} is of task {config.task!r}; choose a run of a forecasting task")
    task.use_files(folder)
    task.load()
    state = checkpoint.load(folder, chosen, warn)
    if state["origin"]["data"] != task.fingerprint:
        raise UserError(f"run {folder.name}: its data have changed since it was trained; pass --data-dir with the same")
    model = candidate.build(config, task, candidate.plan(config, task.spec)).to(chosen)
    model.load_state_dict(state["best"]["weights"] or state["model"])

    @torch.no_grad()
    def predict(inputs: torch.Tensor) -> torch.Tensor:
        with eval_mode(model), autocast(chosen, config.train.precision):
            outputs: torch.Tensor = model(inputs.to(chosen))
        return outputs.float().cpu()

    values, errors = save_forecasts(task, predict, folder, config.train.eval_batch_size)
    return {"run": folder.name, "forecasts": str(values), "errors": str(errors)}
