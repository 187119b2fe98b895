"""Boards, what the store was sent, and what is wrong here, as plain values and as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

import tasks
from suite.boards import board, view
from suite.cli.doctor import Check
from suite.cli.report.tables import out
from suite.config.recipe import SCALES
from suite.console import err
from suite.errors import UserError, did_you_mean
from suite.records import runs_folder
from suite.tracking.delivery import upload

DOMAINS = ("language", "vision", "forecasting", "recall")


def find_boards(task: str | None, domain: str | None, scale: str | None) -> list[board.Board]:
    if task:
        tasks.get(task)
    for given, allowed, what in ((domain, DOMAINS, "domain"), (scale, SCALES, "scale")):
        if given and given not in allowed:
            raise UserError(f"unknown {what} {given!r}{did_you_mean(given, allowed)} (allowed: {', '.join(allowed)})")
    records = board.local_records()
    known = [made for made in records if board.is_known(made)]
    for count, what in (
        (board.count_records() - len(records), "damaged"),
        (len(records) - len(known), "written by another version"),
    ):
        if count:
            err.print(f"[yellow]warning:[/] {count} record(s) left out, {what}: suite doctor names them")
    return board.boards(known, task=task, domain=domain, scale=scale)


def plain_boards(boards: Sequence[board.Board]) -> list[dict[str, Any]]:
    return [view.plain(b) for b in boards]


def show_boards(boards: Sequence[board.Board], *, as_markdown: bool) -> None:
    if not boards:
        err.print(
            f"no runs of that kind in {escape(str(runs_folder.home()))} yet; start one: suite run --task "
            "fashion-mnist --mixer fem"
        )
    for b in boards:
        if as_markdown:
            sys.stdout.write(view.markdown(b) + "\n")
        else:
            out.print(view.table(b), "")


def upload_run(run: str) -> dict[str, Any]:
    folder = runs_folder.find_run(run)
    tracked = upload(folder, runs_folder.home())
    return {"run": folder.name, "store": tracked.uri, "mlflow_run": tracked.run_id}


def show_checks(found: Sequence[Check]) -> None:
    for check in found:
        out.print(f"{'[green]ok[/]  ' if check.ok else '[red]bad[/] '} [bold]{check.name}[/]: {escape(check.message)}")
