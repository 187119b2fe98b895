"""Mixers over all tasks: the mean of log exchange rates, wins, ties and losses against softmax, and the mean rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from suite.boards.board import Board
from suite.boards.rows import Row
from suite.boards.words import NOTHING, place
from suite.statistics.across import Across, across, wins_ties_losses
from suite.statistics.exchange import SIZES


@dataclass(frozen=True)
class Line:
    """A mixer over the tasks of several boards.

    places: its rank on each board, a dash where it has none.
    across: its mean exchange rate; None without any.
    record: wins, ties and losses against softmax; None for softmax itself.
    mean_rank: a description only: with few tasks no test distinguishes mean ranks.
    tasks: on how many boards it has a rank.
    """

    mixer: str
    places: tuple[str, ...]
    across: Across | None
    record: tuple[int, int, int] | None
    mean_rank: float
    tasks: int

    def cells(self) -> list[str]:
        """The summary's columns after the mixer's name.

        Returns:
            Mean exchange rate with interval, wins / ties / losses, mean rank.
        """
        found = self.across
        worth = NOTHING
        if found is not None and found.rate is not None:
            remarks = [f"{found.censored} beyond a curve"] if found.censored else []
            few = len(found.tasks) < self.tasks
            remarks += [f"from {', '.join(found.tasks)} alone"] if few else []
            ends = ["–" if end is None else f"{end:.2f}" for end in (found.low, found.high)]
            interval = "" if found.low is found.high is None else f" ({ends[0]} to {ends[1]})"
            bound = f"{found.bound} " if found.bound else ""
            worth = "; ".join([f"{bound}{found.rate:.2f}×{interval}", *remarks])
        record = NOTHING if self.record is None else " / ".join(map(str, self.record))
        return [worth, record, f"{self.mean_rank:.1f}"]


def one_per_task(boards: Sequence[Board]) -> list[Board]:
    """The board of each task that has the most rows with a rank: a second scale of a task is no further task.

    Args:
        boards: any boards.

    Returns:
        One board per task, in their sequence.
    """
    most: dict[str, Board] = {}
    for board in boards:
        if board.task not in most or _ranked(board) > _ranked(most[board.task]):
            most[board.task] = board
    return [board for board in boards if board is most[board.task]]


def _ranked(board: Board) -> int:
    return sum(not row.unranked for row in board.rows)


def across_domains(boards: Sequence[Board]) -> list[Line]:
    """The summary of several boards.

    Args:
        boards: one per task.

    Returns:
        One line per mixer that has a rank on any board: those on most boards first, then by mean rank.
    """
    by_mixer: dict[str, dict[int, Row]] = {}
    for index, board in enumerate(boards):
        for row in board.rows:
            if not row.unranked and row.figures and row.figures.rank:
                by_mixer.setdefault(row.entry, {})[index] = row
    lines = [_line(mixer, rows, boards) for mixer, rows in by_mixer.items()]
    return sorted(lines, key=lambda line: (-line.tasks, line.mean_rank, line.mixer))


def _line(mixer: str, rows: dict[int, Row], boards: Sequence[Board]) -> Line:
    rates = {boards[i].title: row.figures.exchange for i, row in rows.items() if row.figures and row.figures.exchange}
    verdicts = [row.figures.verdict for row in rows.values() if row.figures and row.figures.verdict]
    ranks = [row.figures.rank for row in rows.values() if row.figures and row.figures.rank]
    return Line(
        mixer=mixer,
        places=tuple(place(rows[i]) if i in rows else NOTHING for i in range(len(boards))),
        across=across(rates, (SIZES[0], SIZES[-1])) if rates else None,
        record=wins_ties_losses(verdicts) if verdicts else None,
        mean_rank=fmean((rank.first + rank.last) / 2 for rank in ranks),
        tasks=len(rows),
    )
