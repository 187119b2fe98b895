"""What a board says about itself: its result in one sentence, and what a reader must know to use it."""

from __future__ import annotations

from suite.boards.board import Board
from suite.config.run_config import OWN_ORIGINS
from suite.console import format_metric


def headline(board: Board) -> str:
    """The leader and its result."""
    leader = next((row for row in board.rows if row.place == 1), None)
    return f"{leader.mixer} leads with {format_metric(board.metric, leader.mean)}" if leader else "no matched run yet"


def notes(board: Board) -> str:
    """How the rows are ordered, and what is not shown or not comparable."""
    found = ["ordered by the mean over seeds (± sample standard deviation); an order, not a significance test"]
    if board.other_rates:
        found.append(f"{board.other_rates} row(s) of other learning rates or weight decays not shown: validation chose")
    if any("host prior" in row.mixer for row in board.rows):
        found.append("host prior: positive, normalised weights of that kind, not the full published layer of the name")
    if len({made.hardware.device for row in board.rows for made in row.records}) > 1:
        found.append("runs of different devices: compare no speeds or memory")
    if any(row.first.config.mixer_origin not in OWN_ORIGINS for row in board.rows):
        found.append("parameters and FLOPs of third-party mixers are as recorded, not counted again")
    if board.unfinished:
        found.append(f"{board.unfinished} unfinished, failed or diverged run(s) not shown")
    if board.refused:
        found.append(f"{board.refused} record(s) left out, damaged or contradictory: suite doctor names them")
    return "; ".join(found)
