"""`suite leaderboard`: the boards of the runs in the runs folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json
from suite.console import err, warn
from suite.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from suite.boards.board import Board


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
        typer.Option("--output", help="Write index.html, board.json and tables to this folder.", show_default=False),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --output: compare the files there, write nothing; exit 2 if one differs."),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Shows the boards of the runs here: one row per mixer, ordered by the primary metric on test.

    `suite leaderboard --task fashion-mnist --markdown > board.md`

    `suite leaderboard --output boards`   writes a page for the browser

    `suite leaderboard --records leaderboards --output leaderboards --check`
    """
    if check and output is None:
        raise UserError("--check compares the files of a folder: add --output FOLDER")
    if records is None:
        from suite.records.home import runs_home
        from suite.tracking import backlog

        backlog.send_in_background(runs_home())
    found, links = find_boards(task, domain, scale, records)
    if output is not None:
        claims = None if records is None or task or domain or scale else records
        write_files(found, links, output, claims=claims, check=check)
    elif as_json:
        print_json(_plain(found))
    elif as_csv or as_latex:
        from suite.boards.page import tables

        sys.stdout.write(tables.comma_separated(found) if as_csv else "\n".join(map(tables.latex, found)))
    else:
        print_boards(found, as_markdown=markdown)


def _plain(boards: Sequence[Board]) -> list[Any]:
    """The boards as JSON values. Without any, nothing that imports PyTorch is imported."""
    if not boards:
        return []
    from suite.boards.plain import plain

    return [plain(board) for board in boards]


def write_files(
    boards: Sequence[Board], links: Mapping[str, str], folder: Path, *, claims: Path | None = None, check: bool = False
) -> None:
    """Writes the published files of the boards, with the findings where the folder `claims` has claims; or compares
    them. Raises UserError where one differs.
    """
    from suite.boards.findings import claim, document, measured
    from suite.boards.page import published

    files = published.generated(boards, links)
    if claims and (claims / claim.NAME).is_file():
        found = measured.findings(claim.read(claims / claim.NAME), boards)
        files |= {document.NAME: document.document(found)}
    if check:
        published.check(files, folder)
        err.print(f"{len(files)} files in {folder} are what the records give")
    else:
        published.write(files, folder)
        err.print(f"{len(boards)} board(s) in {folder}: open {folder / 'index.html'}")


def find_boards(
    task: str | None, domain: str | None, scale: str | None, folder: Path | None = None
) -> tuple[list[Board], dict[str, str]]:
    """The boards of all usable records, and the files of records below `folder` by their hashes. Warns about records
    that are not usable; raises UserError for an unknown task or name.
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
            warn(f"left out: {each.reason}")
    elif found.refused:
        count = len(found.refused)
        warn(f"{count} record(s) left out, damaged or contradictory: suite doctor names them")
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


def print_boards(boards: Sequence[Board], *, as_markdown: bool) -> None:
    """Prints the boards as tables or Markdown; without any, prints on stderr how to start a run."""
    from suite.records.home import runs_home

    if not boards:
        home = runs_home()
        err.print(f"no matching runs in {home} yet; start one: suite run --task fashion-mnist --mixer fem")
        return
    from suite.boards.markdown import markdown
    from suite.boards.terminal import table

    for board in boards:
        if as_markdown:
            sys.stdout.write(markdown(board) + "\n")
        else:
            out.print(table(board, out.width), "")
