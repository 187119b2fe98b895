"""What commands print to stdout: one JSON document, or tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, cast

from rich.table import Table

from suite.console import SafeConsole, marked, stdout
from suite.safe_text import visible


def _columns() -> int:
    """The width of what is not printed on a terminal."""
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and 0 < int(given) < 10_000 else 160


out = SafeConsole(
    file=cast(IO[str], stdout),
    soft_wrap=True,
    width=None if stdout.isatty() else _columns(),
)


def print_json(value: Any) -> None:
    """Prints one JSON document, in which control characters are escapes as JSON writes them."""
    stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """What `print_json` prints."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return (text if visible(text) == text else json.dumps(value, indent=1, allow_nan=False)) + "\n"


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Prints a table with one line per row and the named columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), no_wrap=column != "summary")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    out.print(table)


def print_mapping(values: Mapping[str, Any]) -> None:
    """Prints one line per name and value; a nested mapping becomes a list with commas."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
        table.add_row(marked("[bold]{}[/]", name), str(value))
    out.print(table)


def _cell(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else "–" if value is None else str(value)
