"""Looking at finished runs: boards, the tracking UI, and the state of the store."""

from __future__ import annotations

from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.commands.output import emit


def leaderboard(
    task: opt.Task = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="language, vision, forecasting or recall.", show_default=False)
    ] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this scale.", show_default=False)] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")] = False,
    as_json: opt.Json = False,
) -> None:
    """The boards of the runs here: a row a mixer, ordered by the primary metric on test.

    `suite leaderboard --task fashion-mnist --markdown > board.md`
    """
    from suite.cli.report import results

    found = results.find_boards(task, domain, scale)
    if as_json:
        emit(results.plain_boards(found))
    else:
        results.show_boards(found, as_markdown=markdown)


def ui(
    task: opt.Task = None,
    port: opt.Port = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
) -> None:
    """Opens the MLflow UI on a task's board; Ctrl-C ends it."""
    from suite.records import runs_folder
    from suite.tracking.ui_server import serve

    if task:
        import tasks

        tasks.get(task)
    raise typer.Exit(serve(runs_folder.writable_home(), port, task=task, open_browser=browser))


def upload(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")], as_json: opt.Json = False
) -> None:
    """Sends a run's tracking journal to the store again, after the store could not be reached."""
    from suite.cli.report import results
    from suite.cli.report.tables import show_mapping

    found = results.upload_run(run_id)
    emit(found) if as_json else show_mapping(found)


def doctor(as_json: opt.Json = False) -> None:
    """Looks over the installation, the runs folder and the store; closes the tracked runs of dead processes."""
    from suite.cli import doctor as checks
    from suite.cli.report import results

    found = checks.examine()
    emit([check.plain() for check in found]) if as_json else results.show_checks(found)
    raise typer.Exit(0 if all(check.ok for check in found) else 1)
