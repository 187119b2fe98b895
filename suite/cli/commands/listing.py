"""`suite list tasks`, `suite list mixers` and `suite list runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from suite.cli import options as opt
from suite.cli.described import MIXERS, TASKS, described
from suite.cli.output import out, print_json, print_rows
from suite.console import err, format_metric, marked
from suite.errors import UserError, did_you_mean
from suite.safe_text import quoted

if TYPE_CHECKING:
    from backbones.mixers.base import Mixer
    from suite.records.listed import ListedRun
    from tasks.base import Task

TASK_FIELDS = ("name", "domain", "metric", "higher_is_better", "data", "protocol", "scales", "summary")
MIXER_FIELDS = (
    "name",
    "paper",
    "summary",
    "causal",
    "bidirectional",
    "mixes_tokens",
    "constant_state",
    "needs",
    "pays_in_ffn",
    "domains",
    "options",
)


def list_tasks(as_json: opt.Json = False) -> None:
    """Lists the tasks with their domain and primary metric.

    `suite list tasks`
    """
    found = describe_tasks()
    print_json(found) if as_json else print_available(found, ("name", "domain", "metric", "data", "summary"))


def list_mixers(as_json: opt.Json = False) -> None:
    """Lists the mixers with their paper and capabilities.

    `suite list mixers --json`
    """
    found = describe_mixers()
    columns = ("name", "paper", "causal", "bidirectional", "constant_state", "summary")
    print_json(found) if as_json else print_available(found, columns)


def list_runs(
    task: opt.Task = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="finished, diverged, failed, interrupted, running, stopped or damaged.",
            show_default=False,
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Lists the runs here, the newest first: status, step, test figure, and how to resume those that stopped.

    `suite list runs --task sotu --status stopped`

    Other commands take a run by any unique part of its id, or by `latest`.
    """
    from suite.cli.commands.boards.leaderboard import task_of_boards
    from suite.records.listed import STATUSES, listed_runs

    if status is not None and status not in STATUSES:
        near = did_you_mean(status, STATUSES)
        raise UserError(f"unknown status {quoted(status)}{near} (allowed: {', '.join(STATUSES)})")
    found = listed_runs(task_of_boards(task), status)
    print_json([describe_run(each) for each in found]) if as_json else print_runs(found)


def describe_run(each: ListedRun) -> dict[str, Any]:
    """A run as plain JSON values."""
    from suite.boards.board import primary_metric

    fields = {name: value for name, value in vars(each).items() if name != "made"}
    metric, value = None, None
    if each.made and "test" in each.made.metrics:
        metric = primary_metric(each.made).name
        value = each.made.metrics["test"][metric]
    return {**fields, "metric": metric, "value": value}


def print_runs(found: Sequence[ListedRun]) -> None:
    """Prints one line per run, then one line per reason; without any run, how to start one."""
    from suite.records.home import runs_home

    if not found:
        err.print(f"no such run in {runs_home()}; start one: suite run --task fashion-mnist --mixer fem")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "status", "step", "test", "resume"):
        table.add_column(column, overflow="fold", justify="right" if column == "step" else "left")
    for each in found:
        table.add_row(each.id, each.status, _steps(each), _figure(each), (each.resume or "").removeprefix("suite run "))
    out.print(table, soft_wrap=False)
    for each in found:
        if each.reason:
            out.print(marked("[yellow]{}[/] {}: {}", each.status, each.id, each.reason))
    if any(each.resume for each in found):
        err.print("to continue a run: suite run --resume RUN")


def _steps(each: ListedRun) -> str:
    return f"{each.step if each.step is not None else '–'}/{each.steps if each.steps is not None else '–'}"


def _figure(each: ListedRun) -> str:
    from suite.boards.board import primary_metric

    if not each.made or "test" not in each.made.metrics:
        return "–"
    metric = primary_metric(each.made)
    return f"{metric.name} {format_metric(metric, each.made.metrics['test'][metric.name])}"


def describe_tasks() -> list[dict[str, Any]]:
    """One row per task. A package's task that cannot be loaded is listed too, with the reason."""
    return described("tasks", TASKS, _describe_tasks)


def describe_mixers() -> list[dict[str, Any]]:
    """One row per mixer. A mixer that cannot be loaded or built here is listed too, with the reason."""
    return described("mixers", MIXERS, _describe_mixers)


def _describe_tasks() -> list[dict[str, Any]]:
    import tasks
    from suite.errors import UserError
    from tasks.base import DataError

    found: list[dict[str, Any]] = []
    for name in tasks.names():
        try:
            row, reason = _describe_task(name), ""
        except (DataError, UserError) as error:
            row, reason = dict.fromkeys(TASK_FIELDS), str(error)
        found.append({**row, "name": name, "origin": tasks.origin(name), "available": not reason, "reason": reason})
    return found


def _describe_task(name: str) -> dict[str, Any]:
    import tasks
    from suite.config.recipe import scales_of

    cls = tasks.get(name)
    primary = cls().primary
    values = (
        name,
        cls.domain,
        primary.name,
        primary.higher_is_better,
        _data_of(cls),
        cls.protocol,
        list(scales_of(name)),
        cls.summary,
    )
    return dict(zip(TASK_FIELDS, values, strict=True))


def _data_of(cls: type[Task]) -> str:
    """Where a task's data come from, in a few words."""
    if not cls.needs_data_dir:
        return "synthetic" if cls.synthetic else "embedded"
    return {
        "run": "download or --data-dir",
        "prepare": "suite data prepare or --data-dir",
        "": "folder (--data-dir)",
    }[cls.downloads]


def _describe_mixers() -> list[dict[str, Any]]:
    from backbones.mixers import registry
    from backbones.mixers.errors import MixerError

    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            cls = registry.get(name)
            row, reason = _describe_mixer(cls), cls.obstacle()
        except MixerError as error:
            row, reason = dict.fromkeys(MIXER_FIELDS), " ".join(str(error).split())
        found.append({**row, "name": name, "origin": registry.origin(name), "available": not reason, "reason": reason})
    return found


def print_available(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Prints a table of the available rows, then one line per reason why others are not available here."""
    print_rows([row for row in rows if row["available"]], columns)
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row["available"]:
            missing.setdefault(row["reason"], []).append(row["name"])
    for reason, names in missing.items():
        out.print(marked("[yellow]not available here[/]: {}: {}", ", ".join(names), reason))


def _describe_mixer(cls: type[Mixer]) -> dict[str, Any]:
    import tasks

    can = cls.capabilities
    values = (
        "",
        cls.paper,
        cls.summary,
        can.causal,
        can.bidirectional,
        can.mixes_tokens,
        can.constant_state,
        sorted(can.needs),
        can.pays_in_ffn,
        [
            *(tasks.CAUSAL_DOMAINS if can.causal else ()),
            *(d for d in tasks.DOMAINS if d not in tasks.CAUSAL_DOMAINS and can.bidirectional),
        ],
        sorted(cls.Config.model_fields),
    )
    return dict(zip(MIXER_FIELDS, values, strict=True))
