"""The pages of the boards, one for each and one that leads to them, and the document next to them: pure functions of
the boards, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined

from suite.boards.board import Board
from suite.boards.columns.column import Column
from suite.boards.columns.table import table_columns
from suite.boards.domains import Line, across_domains, one_per_task
from suite.boards.notes import cautions, headline, not_shown, scope, statistics
from suite.boards.page.plots import plots
from suite.boards.page.vector import Shared
from suite.boards.plain import plain
from suite.boards.rows import Row

TEMPLATES = ("layout.html.j2", "index.html.j2", "board.html.j2")
#: The folder of the boards' pages.
BOARDS = "boards"
TITLE = "Mixer Suite: which sequence mixer is better at equal cost?"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, what it is sorted by, its CSS classes, and where it links to."""

    text: str
    key: str
    style: str
    link: str = ""


def pages(boards: Sequence[Board], links: Mapping[str, str]) -> dict[str, str]:
    """Pages that are self-contained, readable without JavaScript, light and dark.

    Args:
        boards: in the order in which they are shown.
        links: hash of a record → its path relative to the folder of the first page.

    Returns:
        Name → HTML of `index.html`, and of a page for each board in the folder `BOARDS`.
    """
    read = files("suite.boards.page").joinpath
    templates = {name: read(name).read_text("utf-8") for name in TEMPLATES}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=DictLoader(templates)
    )
    style, main = read("page.css").read_text("utf-8"), one_per_task(boards)
    shown = [_heading(board, address) for board, address in zip(boards, addresses(boards), strict=True)]
    common = {"title": TITLE, "boards": shown, "script": read("sort.js").read_text("utf-8")}
    summary = {"summary": _summary(across_domains(main)), "tasks": [board.task for board in main]}
    made = {"index.html": environment.get_template("index.html.j2").render(**common, **summary, style=style)}
    for board, heading in zip(boards, shown, strict=True):
        shared = Shared()
        whole = heading | _board(board, links, shared)
        made[str(heading["address"])] = environment.get_template("board.html.j2").render(
            **common, board=whole, style=style + shared.rules(), symbols=shared.symbols()
        )
    return made


def addresses(boards: Iterable[Board]) -> list[str]:
    """Where the page of each board is, relative to the first page.

    Args:
        boards: in any order.

    Returns:
        Names of files, no two of them equal, not even where upper and lower case count as one.
    """
    found: list[str] = []
    for board in boards:
        name = file_name(board.title)
        equal = sum(each.startswith((f"{BOARDS}/{name}.", f"{BOARDS}/{name}~")) for each in found)
        found.append(f"{BOARDS}/{name}{f'~{equal + 1}' * bool(equal)}.html")
    return found


def file_name(text: str) -> str:
    """A text as part of a file's name or an address.

    Args:
        text: any text.

    Returns:
        Its letters and digits in lower case, with `-` between words, at most 60.
    """
    kept = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text)
    return "-".join(kept.lower().split())[:60]


def document(boards: Sequence[Board]) -> str:
    """All boards as one JSON document.

    Args:
        boards: in the order of the page.

    Returns:
        JSON text.
    """
    return json.dumps([plain(board) for board in boards], indent=1, sort_keys=True, allow_nan=False) + "\n"


def _heading(board: Board, address: str) -> dict[str, object]:
    return {
        "address": address,
        "title": board.title,
        "headline": headline(board),
        "ranked": [row for row in board.rows if not row.unranked],
        "runs": sum(len(row.records) for row in board.rows) + len(board.left_out),
    }


def _board(board: Board, links: Mapping[str, str], shared: Shared) -> dict[str, object]:
    links = {record: f"../{quote(address)}" for record, address in links.items()}
    return {
        "scope": scope(board),
        "header": [(column.title(board), _style(column)) for column in table_columns(board)],
        "ranked": [_cells(row, board, links) for row in board.rows if not row.unranked],
        "unranked": [_cells(row, board, links) for row in board.rows if row.unranked],
        "statistics": list(statistics(board)),
        "cautions": [*cautions(board), *not_shown(board)],
        "plots": [(caption, shared.plot(svg)) for caption, svg in plots(board)],
        "runs_left_out": len(board.left_out),
        "left_out": _by_reason(board),
    }


def _by_reason(board: Board) -> dict[str, dict[str, list[str]]]:
    """The runs without a row: reason → what ran → seeds. Their ids would be much of the page; `board.json` has them."""
    found: dict[str, dict[str, list[int]]] = {}
    for each in board.left_out:
        ran, seed, _ = each.id.rpartition(f"-{board.task}-")[2].rsplit("-", 2)
        ran = ran.removesuffix(f"-{board.scale}")
        found.setdefault(each.reason, {}).setdefault(ran, []).append(int(seed.removeprefix("s")))
    return {reason: {name: seed_ranges(seeds) for name, seeds in ran.items()} for reason, ran in found.items()}


def seed_ranges(seeds: Iterable[int]) -> list[str]:
    """Seeds as a reader would list them.

    Args:
        seeds: in any order.

    Returns:
        `s3`, or `s0–s7` for three and more that follow each other.
    """
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return [
        text for run in runs for text in ([f"s{run[0]}–s{run[-1]}"] if len(run) > 2 else [f"s{seed}" for seed in run])
    ]


def _cells(row: Row, board: Board, links: Mapping[str, str]) -> list[Cell]:
    made = []
    for column in table_columns(board):
        value = column.value(row)
        text = column.cell(row, board)
        key = f"{value:.9g}" if isinstance(value, float) else str(value) if isinstance(value, (int, str)) else text
        link = links.get(row.first.hash, "") if column.name == "mixer" else ""
        made.append(Cell(text, "" if key == text else key, _style(column), link))
    return made


def _style(column: Column) -> str:
    """CSS classes; a number's alignment is that of all cells without one."""
    return " ".join(["left"] * (column.align == "left") + ["muted"] * column.muted)


def _summary(lines: Sequence[Line]) -> list[dict[str, object]]:
    return [{"mixer": line.mixer, "cells": line.cells(), "places": line.places} for line in lines]
