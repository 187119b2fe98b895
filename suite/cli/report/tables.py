"""Tables for people, on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160"))
)


def show_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.replace("_", " "), no_wrap=column != "summary")
    for row in rows:
        made.add_row(*(_word(row[c]) for c in columns))
    out.print(made)


def show_mapping(values: Mapping[str, Any]) -> None:
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
        made.add_row(f"[bold]{name}[/]", escape(str(value)))
    out.print(made)


def _word(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else "–" if value is None else escape(str(value))
