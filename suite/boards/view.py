"""A board for the terminal, as Markdown and as JSON values."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from suite.boards.board import Board, Row
from suite.boards.rows import is_retired
from suite.config.run_config import OWN_ORIGINS
from suite.console import format_metric
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.records.schema import Record


def table(board: Board) -> Table:
    """The board for a terminal."""
    made = Table(title=board.title, caption=_notes(board), title_justify="left", caption_justify="left")
    for i, header in enumerate(_headers(board)):
        made.add_column(header, justify="left" if i == 1 else "right", no_wrap=i == 1)
    for row in board.rows:
        made.add_row(*map(escape, _cells(row, board)))
    return made


def markdown(board: Board) -> str:
    """The board as a Markdown section; its first line is the news."""
    leader = next((row for row in board.rows if row.place == 1), None)
    news = (
        f": {leader.mixer} leads with {format_metric(board.metric, leader.mean)}" if leader else ": no matched run yet"
    )
    head = _headers(board)
    lines = [f"**{board.title}**{news}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row, board)) + " |" for row in board.rows]
    return "\n".join([*lines, "", f"*{_notes(board)}*", ""])


def plain(board: Board) -> dict[str, Any]:
    """The board as JSON values."""
    return {
        "task": board.task,
        "domain": board.domain,
        "scale": board.scale,
        "deviations": list(board.deviations),
        "metric": board.metric.name,
        "higher_is_better": board.metric.higher_is_better,
        "unfinished": board.unfinished,
        "rows": [
            {
                "place": row.place,
                "mixer": row.mixer,
                "matched": row.first.certificate.matched,
                "mean": row.mean,
                "sd": row.spread,
                "seeds": [made.seed for made in row.records],
                "runs": [made.id for made in row.records],
                "mixer_options": row.first.certificate.mixer_options.model_dump(mode="json"),
                "values": [made.metrics["test"][made.primary_metric] for made in row.records],
                "parameters": row.first.certificate.parameters,
                "ratio": row.first.certificate.ratio,
                "flops": row.first.certificate.flops,
                "reference_flops": row.first.certificate.reference_flops,
                "state_bytes": row.first.certificate.state_bytes,
                "peak_memory_bytes": row.first.peak_memory_bytes,
                "examples_per_s": row.first.timing.examples_per_s if row.first.timing else None,
            }
            for row in board.rows
        ],
    }


def _cells(row: Row, board: Board) -> list[str]:
    one, certificate = row.first, row.first.certificate
    figure = format_metric(board.metric, row.mean)
    if row.spread is not None:
        figure += f" ± {format_metric(board.metric, row.spread)}"
    return [
        str(row.place) if row.place else _reason(one),
        row.mixer,
        figure,
        str(len(row.records)),
        f"{certificate.parameters:,} ({certificate.ratio:.3f}×)",
        f"{certificate.flops / certificate.reference_flops:.2f}×",
        f"{one.timing.examples_per_s:,.0f}" if one.timing else "–",
        f"{one.peak_memory_bytes / 2**20:,.0f}",
    ]


def _reason(made: Record) -> str:
    """Why a row has no place."""
    if made.config.mixer_origin == BASELINE:
        return "baseline"
    return "earlier version" if is_retired(made) else "unmatched"


def _headers(board: Board) -> list[str]:
    arrow = "↑" if board.metric.higher_is_better else "↓"
    unit = "" if board.metric.unit == "%" else (f", {board.metric.unit}" if board.metric.unit else "")
    return [
        "#",
        "mixer",
        f"test {board.metric.name}{unit} {arrow}",
        "seeds",
        "parameters (of softmax's)",
        "FLOPs",
        "examples/s",
        "peak MB",
    ]


def _notes(board: Board) -> str:
    notes = ["ordered by the mean over seeds (± sample standard deviation); an order, not a significance test"]
    if board.other_rates:
        notes.append(f"{board.other_rates} row(s) of other learning rates or weight decays not shown: validation chose")
    if any("host prior" in row.mixer for row in board.rows):
        notes.append("host prior: positive, normalised weights of that kind, not the full published layer of the name")
    if len({made.hardware.device for row in board.rows for made in row.records}) > 1:
        notes.append("runs of different devices: compare no speeds or memory")
    if any(row.first.config.mixer_origin not in OWN_ORIGINS for row in board.rows):
        notes.append("the counts of third-party mixers are what their records claim: their code is not run here")
    if board.unfinished:
        notes.append(f"{board.unfinished} unfinished, failed or diverged run(s) not shown")
    if board.refused:
        notes.append(f"{board.refused} record(s) left out, damaged or contradictory: suite doctor names them")
    return "; ".join(notes)
