"""`suite compare`: two mixers on every board that has both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from suite.cli import options as opt
from suite.cli.commands.boards.leaderboard import find_boards
from suite.cli.commands.boards.shown import Report, printed, shown
from suite.cli.output import json_text
from suite.console import format_number, stdout
from suite.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from suite.boards.pair import Pair

EXAMPLES = """
**Examples**

`suite compare fem softmax`

`suite compare fem simple-gla --task sotu --json`
"""


def compare(
    one: Annotated[str, typer.Argument(metavar="A", help="A mixer, or the name of its row on a board.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another mixer.")],
    task: opt.Task = None,
    scale: Annotated[str | None, typer.Option("--scale", help="Only this scale.", show_default=False)] = None,
    records: opt.Records = None,
    as_json: opt.Json = False,
) -> None:
    """Compares two mixers: their difference with its interval, the board's verdict, what each is worth, and how many
    more seeds would distinguish them.
    """

    def find(report: Report) -> dict[str, Any]:
        from suite.boards.pair import pairs

        boards, _ = find_boards(task, None, scale, records, report)
        found = pairs(boards, one, other)
        if not found:
            raise UserError(_nothing(boards, one, other))
        if as_json:
            return {"text": json_text([_plain(pair) for pair in found])}
        return {"text": printed(map(_table, found))}

    options = {"one": one, "other": other, "task": task, "scale": scale, "json": as_json}
    stdout.write(shown("compare", options, records, find)["text"])


def _nothing(boards: Any, one: str, other: str) -> str:
    known = sorted({row.entry for board in boards for row in board.rows if row.figures})
    for name in (one, other):
        if name not in known:
            rows = f"rows with two or more seeds: {', '.join(known)}" if known else "no row has two or more seeds yet"
            return f"no row {name!r}{did_you_mean(name, known)} ({rows})"
    if one == other:
        return f"{one!r} is one row; compare it with another one: {', '.join(name for name in known if name != one)}"
    return f"no board has rows of both {one!r} and {other!r} with two or more seeds"


def _plain(pair: Pair) -> dict[str, Any]:
    from suite.boards.words import exchange_values

    low, high = pair.difference.interval()
    return {
        "board": pair.board.title,
        "metric": pair.board.metric.name,
        "a": {"mixer": pair.one.mixer, "mean": pair.one.mean, "seeds": len(pair.one.records)},
        "b": {"mixer": pair.other.mixer, "mean": pair.other.mean, "seeds": len(pair.other.records)},
        "test": pair.test,
        "difference": {"estimate": pair.difference.estimate, "low": low, "high": high, "p": pair.difference.p},
        "over_units": _over_units(pair),
        "p_over_board": pair.p,
        "verdict": pair.verdict,
        "more_seeds": pair.seeds,
        "exchange": {"a": exchange_values(pair.one), "b": exchange_values(pair.other)},
    }


def _over_units_row(pair: Pair) -> list[tuple[str, str]]:
    if pair.over_units is None:
        return []
    low, high = (format_number(pair.board.metric, each, signed=True) for each in pair.over_units.interval())
    return [(f"over seeds and {pair.units}", f"{low} to {high}")]


def _over_units(pair: Pair) -> dict[str, Any] | None:
    """The interval over seeds and test units; None where the records have none."""
    if pair.over_units is None:
        return None
    low, high = pair.over_units.interval()
    return {"units": pair.units, "low": low, "high": high, "p": pair.over_units.p}


def _table(pair: Pair) -> Table:
    from suite.boards import words

    metric = pair.board.metric
    low, high = (format_number(metric, each, signed=True) for each in pair.difference.interval())
    seeds = {0: "none, these are enough", None: "more than 1,000 each"}.get(pair.seeds, f"{pair.seeds} more each")
    rows = [
        (pair.one.mixer, f"{words.value(pair.one, metric)}, {len(pair.one.records)} seeds"),
        (pair.other.mixer, f"{words.value(pair.other, metric)}, {len(pair.other.records)} seeds"),
        ("better by", f"{format_number(metric, pair.difference.estimate, signed=True)} ({low} to {high})"),
        *_over_units_row(pair),
        ("p over the board", f"{words.small(pair.p)} ({words.small(pair.difference.p)} unadjusted)"),
        ("worth", f"{words.exchange(pair.one)} and {words.exchange(pair.other)}"),
        ("verdict", f"{pair.one.mixer} is {pair.verdict}" if pair.verdict != "undecided" else "undecided"),
        ("seeds to distinguish them", seeds),
    ]
    title = f"{pair.board.title}: {metric.name} {'↑' if metric.higher_is_better else '↓'}"
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table
