"""`suite leaderboard`: the boards of the runs in the runs folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from suite.cli import options as opt
from suite.cli.commands.boards.shown import Report, printed, shown
from suite.cli.output import json_text, out
from suite.console import err, stdout, warn
from suite.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from suite.boards.board import Board

PRINTED = ("table", "markdown")  # forms that say how to start a run where there is no board


def leaderboard(
    task: opt.Task = None,
    domain: Annotated[
        str | None, typer.Option("--domain", help="language, vision, forecasting or recall.", show_default=False)
    ] = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this scale.", show_default=False)] = None,
    records: opt.Records = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one CSV table on stdout.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX (booktabs) on stdout.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Write index.html, a page for each board, board.json and tables to this folder.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --output: compare the files there, write nothing; exit 2 if one differs."),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Shows the boards of the runs here: one row per mixer, ordered by the primary metric on test.

    `suite leaderboard --task fashion-mnist --markdown > board.md`

    `suite leaderboard --output boards`   writes pages for the browser

    `suite leaderboard --records leaderboards --output leaderboards --check`
    """
    if check and output is None:
        raise UserError("--check compares the files of a folder: add --output FOLDER")
    if records is None:
        from suite.records.home import runs_home
        from suite.tracking import backlog

        backlog.send_in_background(runs_home())
    form = "json" if as_json else "csv" if as_csv else "latex" if as_latex else "markdown" if markdown else "table"
    form = "files" if output is not None else form
    claims = None if task or domain or scale else records
    options = {"task": task, "domain": domain, "scale": scale, "form": form}

    def find(report: Report) -> dict[str, Any]:
        boards, links = find_boards(task, domain, scale, records, report)
        found = {"files": files_of(boards, links, claims)} if form == "files" else {"text": text_of(boards, form)}
        return {"count": len(boards), **found}

    found = shown("leaderboard", options, records, find)
    if output is not None:
        write_files(found["files"], found["count"], output, check=check, whole=not (task or domain or scale))
    elif found["count"] or form not in PRINTED:
        stdout.write(found["text"])
    else:
        _no_boards(records)


def text_of(boards: Sequence[Board], form: str) -> str:
    """What is printed of the boards. Without any, nothing that imports PyTorch is imported.

    Args:
        boards: in their order.
        form: json, csv, latex, markdown or table.

    Returns:
        The text, with its last line break.
    """
    if form == "json":
        return json_text(_plain(boards))
    if form in ("csv", "latex"):
        from suite.boards.page import tables

        return tables.comma_separated(boards) if form == "csv" else "\n".join(map(tables.latex, boards))
    if not boards:
        return ""
    from suite.boards.markdown import markdown
    from suite.boards.terminal import table

    if form == "markdown":
        return "".join(markdown(board) + "\n" for board in boards)
    return printed(table(board, out.width) for board in boards)


def _plain(boards: Sequence[Board]) -> list[Any]:
    """The boards as JSON values."""
    if not boards:
        return []
    from suite.boards.plain import plain

    return [plain(board) for board in boards]


def files_of(boards: Sequence[Board], links: Mapping[str, str], claims: Path | None = None) -> dict[str, str]:
    """The published files of the boards.

    Args:
        boards: in their order.
        links: hash of a record → its address relative to the folder of the files.
        claims: a folder with claims, or None: their findings are a file more.

    Returns:
        Name of each file → its content.
    """
    from suite.boards.findings import claim, document, measured
    from suite.boards.page import published

    files = published.generated(boards, links)
    if claims and (claims / claim.NAME).is_file():
        found = measured.findings(claim.read(claims / claim.NAME), boards)
        files |= {document.NAME: document.document(found)}
    return files


def write_files(
    files: Mapping[str, str], boards: int, folder: Path, *, check: bool = False, whole: bool = True
) -> None:
    """Writes the published files of so many boards, or compares them. Raises UserError where one differs."""
    from suite.boards.page import published

    if check:
        published.check(files, folder, whole=whole)
        err.print(f"{len(files)} files in {folder} are what the records give")
    else:
        published.write(files, folder)
        err.print(f"{boards} board(s) in {folder}: open {folder / 'index.html'}")


def find_boards(
    task: str | None, domain: str | None, scale: str | None, folder: Path | None = None, report: Report = warn
) -> tuple[list[Board], dict[str, str]]:
    """The boards of all usable records, and the files of records below `folder` by their hashes. Reports records that
    are not usable; raises UserError for an unknown task or name.
    """
    from suite.config.recipe import SCALES
    from suite.records.home import has_records
    from tasks.base import Domain

    task = task_of_boards(task)
    for given, allowed, what in ((domain, get_args(Domain), "domain"), (scale, SCALES, "scale")):
        if given and given not in allowed:
            raise UserError(f"unknown {what} {given!r}{did_you_mean(given, allowed)} (allowed: {', '.join(allowed)})")
    if folder is None and not has_records():
        return [], {}
    from suite.boards import board
    from suite.records import badges
    from suite.records.collection import read_all, read_published

    found, links = read_published(folder) if folder else (read_all(), {})
    if folder:  # suite doctor looks at the runs here only
        for each in found.refused:
            report(f"left out: {each.reason}")
    elif found.refused:
        count = len(found.refused)
        report(f"{count} record(s) left out, damaged or contradictory: suite doctor names them")
    held = badges.by_record(badges.read(folder)) if folder else {}
    return board.boards(found.records, found.refused, task=task, domain=domain, scale=scale, badges=held), links


def task_of_boards(task: str | None) -> str | None:
    """The name that boards have for a task: that of a file without its folder. Raises UnknownTask for a name that is
    not registered; the code of a third-party task is not needed here.
    """
    import tasks

    if task and ".py:" in task:
        return Path(task).name  # as records hold it
    if task and task not in tasks.names():
        tasks.get(task)  # raises with the nearest name
    return task or None


def print_boards(boards: Sequence[Board]) -> None:
    """Prints the boards as tables; without any, prints on stderr how to start a run."""
    stdout.write(text_of(boards, "table")) if boards else _no_boards()


def _no_boards(folder: Path | None = None) -> None:
    from suite.records.home import runs_home

    if folder is not None:
        err.print(f"no matching records in {folder}; suite submit writes them there")
        return
    err.print(f"no matching runs in {runs_home()} yet; start one: suite run --task fashion-mnist --mixer fem")
