"""`suite plot`: training curves of any runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json
from suite.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from suite.records.schema import Record

EXAMPLES = """
**Examples**

`suite plot --task sotu --mixer fem --mixer softmax`

`suite plot --task sotu --records leaderboards --output curves.pdf`
"""


def plot(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Runs: any unique part of an id, a folder, or latest.")
    ] = None,
    task: opt.Task = None,
    mixer: Annotated[
        list[str] | None, typer.Option("--mixer", help="Only runs of this mixer; repeatable.", show_default=False)
    ] = None,
    records: opt.Records = None,
    output: Annotated[Path, typer.Option("--output", help="The file: .svg, .png or .pdf.")] = Path("training.svg"),
    as_json: opt.Json = False,
) -> None:
    """Draws training losses: one curve for each configuration, the mean of its seeds with their range."""
    from suite.boards.page import curves

    if output.suffix.lstrip(".") not in curves.FORMATS:
        allowed = ", ".join(f".{each}" for each in curves.FORMATS)
        raise UserError(f"--output {str(output)!r}: its format is the suffix (allowed: {allowed})")
    groups = _groups(_chosen(runs or [], task, mixer or [], records))
    output.parent.mkdir(parents=True, exist_ok=True)
    curves.save(groups, output)
    if as_json:
        print_json(
            {"output": str(output), "curves": {name: [made.id for made in group] for name, group in groups.items()}}
        )
    else:
        listed = (f"{name} ({', '.join(str(made.seed) for made in group)})" for name, group in groups.items())
        out.print(f"{output}: mixers and their seeds: {', '.join(listed)}")


def _chosen(runs: Sequence[str], task: str | None, mixers: Sequence[str], folder: Path | None) -> list[Record]:
    """The runs to draw: the named ones, or all of the task. Raises UserError where there are none."""
    from suite.cli.commands.boards.leaderboard import task_of_boards
    from suite.records import record, runs_folder
    from suite.records.collection import read_all, read_published

    if bool(runs) == bool(task):
        raise UserError("name runs, or a task with --task, one of both")
    if runs:
        if mixers or folder:
            raise UserError("--mixer and --records choose among the runs of a task: give --task, not runs")
        read = [record.read(runs_folder.find_run(run) / record.NAME) for run in runs]
    else:
        task = task_of_boards(task)
        every = (read_published(folder)[0] if folder else read_all()).records
        read = [made for made in every if made.task == task and (not mixers or made.mixer in mixers)]
        known = sorted({made.mixer for made in every if made.task == task})
        for name in mixers:
            if name not in known:
                raise UserError(f"no run of {task} with mixer {name!r}{did_you_mean(name, known)}")
    drawn = [made for made in read if made.loss_trace]
    if not drawn:
        raise UserError(f"no run with a loss trace among {len(read)} run(s); start one: suite run")
    return drawn


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs by what distinguishes them apart from their seeds, named as on boards; with the task and the scale where
    these differ.
    """
    from suite.boards.naming import configuration_name

    where = {(made.task, made.scale) for made in records}
    groups: dict[str, list[Record]] = {}
    for made in records:
        place = f" · {made.task} · {made.scale}" if len(where) > 1 else ""
        groups.setdefault(configuration_name(made) + place, []).append(made)
    return groups
