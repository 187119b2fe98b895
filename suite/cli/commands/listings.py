"""What there is: tasks, mixers, and a task's data."""

from __future__ import annotations

from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.commands.output import emit


def list_tasks(as_json: opt.Json = False) -> None:
    """The tasks, with their domain and primary metric."""
    from suite.cli.report import listings
    from suite.cli.report.tables import show_rows

    found = listings.describe_tasks()
    emit(found) if as_json else show_rows(found, ("name", "domain", "metric", "data", "summary"))


def list_mixers(as_json: opt.Json = False) -> None:
    """The mixers, with their paper and what they can do."""
    from suite.cli.report import listings

    found = listings.describe_mixers()
    emit(found) if as_json else listings.show_mixers(found)


def data_info(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Where a task's data come from, their licence, splits and fingerprint."""
    from suite.cli.report import listings
    from suite.cli.report.tables import show_mapping

    found = listings.describe_data(task, data_dir, scale, set_ or [])
    emit(found) if as_json else show_mapping(found)


def data_prepare(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Downloads or reads all of a task's data, checks them and caches what runs need. Goes on where it was stopped.

    `suite data prepare text --data-dir ~/novels --set tokenizer=bpe --set vocab=4096`
    """
    from suite.cli.report import listings
    from suite.cli.report.tables import show_mapping

    found = listings.prepare_data(task, data_dir, scale, set_ or [])
    emit(found) if as_json else show_mapping(found)
