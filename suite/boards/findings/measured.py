"""What the records show about each claim: a verdict for every board that it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from suite.boards.board import Board
from suite.boards.figures import EQUIVALENCE, curve_of
from suite.boards.findings.claim import Claim
from suite.boards.pair import Pair, pairs
from suite.boards.rows import Row, curve_factor
from suite.statistics.comparisons import holm, max_t
from suite.statistics.noise import LEVEL
from suite.statistics.ranking import MARGIN
from suite.statistics.samples import on_equal_seeds

Answer = Literal["supported", "not supported", "equivalent", "undecided", "not measured"]


@dataclass(frozen=True)
class Finding:
    """A claim on one board.

    claim: the claim.
    task: of the board.
    answer: the verdict; "not measured" while a row lacks its full race.
    pair: the comparison; None while it is not measured.
    p: adjusted over all tests of that board which the file of claims holds.
    missing: what is not measured yet; empty where all is.
    first_run: when the first run of either row began; None without any.
    """

    claim: Claim
    task: str
    answer: Answer
    pair: Pair | None = None
    p: float = 1.0
    missing: str = ""
    first_run: datetime | None = None

    @property
    def written_before(self) -> bool:
        """Whether the test was written down before its first run."""
        return self.first_run is None or self.claim.written < self.first_run


def findings(claims: Sequence[Claim], boards: Sequence[Board]) -> list[Finding]:
    """Tests all claims. Over the tests of a task, the probability of any false difference is at most .05 (Holm). Tests
    that are not measured yet count too, so that no difference is lost when they are.

    Args:
        claims: of one file.
        boards: of all records; those that deviate from the shipped recipe are not used.

    Returns:
        One finding for each claim and task, in the order of the claims.
    """
    found: dict[tuple[str, str], Finding] = {}
    for task in dict.fromkeys(task for claim in claims for task in claim.tasks):
        tests = [claim for claim in claims if task in claim.tasks]
        usable = [board for board in boards if board.task == task and not board.deviations]
        compared = [_compared(claim, [board for board in usable if board.scale == claim.scale]) for claim in tests]
        ps = holm([1.0 if isinstance(each, str) else _p(each) for each in compared])
        for claim, each, p in zip(tests, compared, ps, strict=True):
            found[claim.id, task] = _finding(claim, task, each, p)
    return [found[claim.id, task] for claim in claims for task in claim.tasks]


def overall(answers: Sequence[Answer]) -> Answer:
    """One answer for a claim that is tested on several boards.

    Args:
        answers: of the boards.

    Returns:
        "not supported" where any board contradicts the claim; otherwise the answer that all measured boards share,
        "undecided" where they differ, "not measured" without any.
    """
    measured = {answer for answer in answers if answer != "not measured"}
    if "not supported" in measured:
        return "not supported"
    if len(measured) > 1:
        return "undecided"
    return measured.pop() if measured else "not measured"


def _compared(claim: Claim, boards: Sequence[Board]) -> Pair | str:
    """The comparison of both rows after their full races, or what is missing."""
    rows = {row.entry: row for board in boards for row in board.rows}
    waiting = [_progress(name, rows.get(name)) for name in (claim.one, claim.other)]
    if any(waiting):
        return ", ".join(filter(None, waiting))
    return pairs(boards, claim.one, claim.other)[0]


def _progress(name: str, row: Row | None) -> str:
    """How far the race of a row is; empty where it has ended."""
    if row is None or row.race is None:
        return f"{name}: no race"
    return "" if row.race.ended else f"{name}: {row.race.runs} of {row.race.planned} runs"


def _p(pair: Pair) -> float:
    """Of one comparison; on a paired board the larger one of the t test and the sign flips."""
    if pair.test == "welch":
        return pair.difference.p
    values_SR = on_equal_seeds([row.figures.scores for row in (pair.one, pair.other) if row.figures])
    return max(pair.difference.p, max_t(values_SR[:, :1] - values_SR[:, 1:])[0])


def _finding(claim: Claim, task: str, compared: Pair | str, p: float) -> Finding:
    if isinstance(compared, str):
        return Finding(claim, task, "not measured", missing=compared)
    return Finding(claim, task, _answer(claim, compared, p), compared, p, first_run=_first_run(compared))


def _answer(claim: Claim, pair: Pair, p: float) -> Answer:
    if p <= LEVEL:
        as_claimed = claim.expects == "better" and pair.difference.estimate > 0
        return "supported" if as_claimed else "not supported"
    if not _equivalent(pair):
        return "undecided"
    return "supported" if claim.expects == "equivalent" else "equivalent"


def _equivalent(pair: Pair) -> bool:
    """Whether the 90 % interval of the difference is inside what 12.5 % more or fewer parameters change in softmax;
    never where the board has no softmax parameter curve, or a flat one.
    """
    rows = {factor: row for row in pair.board.rows if row.figures and (factor := curve_factor(row)) is not None}
    curve = curve_of({factor: row.figures.scores for factor, row in rows.items() if row.figures})
    if curve is None or curve.is_flat:
        return False
    means = np.array([scores.quality.mean() for scores in curve.rows])
    fewer, same, more = curve.weights(np.log([1 / MARGIN, 1.0, MARGIN])) @ means
    low, high = pair.difference.interval(EQUIVALENCE)
    margin = min(more - same, same - fewer)
    return bool(-margin <= low and high <= margin)


def _first_run(pair: Pair) -> datetime:
    """When the first run of both races began."""
    races = [row.race for row in (pair.one, pair.other) if row.race]
    runs = [
        made for race in races for group in (race.screened, race.finals) for each in group.values() for made in each
    ]
    return min(datetime.fromisoformat(made.created) for made in runs)
