"""`suite ui` and `suite upload`: the MLflow store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from suite.cli import options as opt
from suite.cli.commands.leaderboard import task_of_boards
from suite.cli.output import print_json, print_mapping


def ui(
    task: opt.Task = None,
    port: opt.Port = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Opens the MLflow UI on a task's board; Ctrl-C stops it.

    `suite ui --task fashion-mnist`
    """
    from suite.records import runs_folder
    from suite.tracking.ui_server import serve

    found = task_of_boards(task)
    raise typer.Exit(serve(runs_folder.writable_home(), port, task=found, open_browser=browser))


def upload(run_id: opt.Run, as_json: opt.Json = False) -> None:
    """Sends a run's tracking journal to the store again, for use after the store was unreachable.

    `suite upload fashion-mnist-fem`
    """
    found = upload_run(run_id)
    print_json(found) if as_json else print_mapping(found)


def upload_run(run: str) -> dict[str, Any]:
    from suite.records import runs_folder
    from suite.tracking import delivery

    folder = runs_folder.find_run(run)
    tracked = delivery.upload(folder, runs_folder.home())
    return {"run": folder.name, "store": tracked.uri, "mlflow_run": tracked.run_id}
