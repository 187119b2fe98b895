"""`suite ui`, `suite publish` and `suite upload`: the MLflow store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from suite.cli import options as opt
from suite.cli.commands.boards.leaderboard import task_of_boards
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
    from suite.tracking.ui.server import serve

    found = task_of_boards(task)
    raise typer.Exit(serve(runs_folder.writable_home(), port, task=found, open_browser=browser))


def publish(task: opt.Task = None, records: opt.Records = None, as_json: opt.Json = False) -> None:
    """Writes all runs and boards to the MLflow store, from records and journals: runs that it lacks, one run per row of
    each board, saved views, and the page with its plots. Nothing is stored twice.

    `suite publish`   rebuilds a store that was deleted, and completes one of an earlier version

    `suite publish --task sotu --records leaderboards`   publishes entries instead of the runs here
    """
    from dataclasses import asdict

    from suite.boards.tracked.rebuild import rebuild
    from suite.console import err, warn
    from suite.errors import UserError
    from suite.records import runs_folder
    from suite.tracking.error_messages import explain
    from suite.tracking.store_address import public_uri, tracking_uri

    found = task_of_boards(task)
    try:
        done = rebuild(found, records, report=err.print)
    except UserError:
        raise
    except Exception as error:  # MLflow, its server, its database and the disk raise many types
        uri = tracking_uri(runs_folder.home())
        raise UserError(f"suite publish: {explain(error, public_uri(uri))}") from error
    for reason in done.refused:
        warn(f"left out: {reason}")
    shown = asdict(done)
    counts = {name: len(value) if isinstance(value, list) else value for name, value in shown.items()}
    print_json(shown) if as_json else print_mapping({**counts, "rows": sum(done.rows.values())})


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
