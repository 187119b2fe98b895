"""`suite data info` and `suite data prepare`: a task's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from suite.cli import options as opt
from suite.cli.output import print_json, print_mapping
from suite.console import err, say
from suite.safe_text import one_line

Task = Annotated[str, typer.Argument(metavar="TASK", help="Task; see `suite list tasks`.")]


def info(
    task: Task,
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Shows the source of a task's data, their licence, splits and fingerprint.

    `suite data info household-power`
    """
    found = describe_data(task, data_dir, scale, set_ or [])
    print_json(found) if as_json else print_mapping(found)


def prepare(
    task: Task,
    data_dir: opt.DataDir = None,
    scale: opt.DataScale = None,
    set_: opt.DataSet = None,
    as_json: opt.Json = False,
) -> None:
    """Downloads or reads all of a task's data, checks them and caches what runs need. Resumes where it stopped.

    `suite data prepare text --data-dir ~/novels --set tokenizer=bpe --set vocab=4096`
    """
    found = prepare_data(task, data_dir, scale, set_ or [])
    print_json(found) if as_json else print_mapping(found)


def describe_data(
    task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    import tasks
    from suite.models.effects import refuse_unread_folder
    from suite.models.resolve import resolve_data

    refuse_unread_folder(task, data_dir)
    instance = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    found = instance.info()
    return {
        "task": task,
        "source": found.source,
        "licence": found.licence,
        "splits": dict(found.splits),
        "unit": found.unit,
        "fingerprint": found.fingerprint,
        "embedded": found.embedded,
        "protocol": instance.protocol,
        "notes": list(found.notes),
        **found.extra,
    }


def prepare_data(
    task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """Prepares the data with a progress bar on stderr, then describes them."""
    import tasks
    from suite.models.effects import refuse_unread_folder
    from suite.models.resolve import resolve_data
    from tasks.storage import verified

    refuse_unread_folder(task, data_dir)
    instance = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    say(instance.prepare_note())
    columns = Progress.get_default_columns()
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        bar = progress.add_task(escape(one_line(f"preparing {task}")), total=None)
        with verified.hashing_all():
            instance.prepare(lambda done, total: progress.update(bar, completed=done, total=total))
    return {**describe_data(task, data_dir, scale, sets), "status": "ready"}
