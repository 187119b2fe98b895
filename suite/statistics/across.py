"""Across tasks: the mean of log exchange rates, and wins, ties and losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri

from suite.statistics.exchange import ExchangeRate
from suite.statistics.ranking import Verdict


@dataclass(frozen=True)
class Across:
    """A mixer over several tasks, which are taken as fixed.

    rate: geometric mean of its exchange rates; None where no task has one.
    low, high: the 95 % interval of the rate; None where no task has one, all rates lie beyond a curve, or that of the
        only task is open at this end.
    bound: "≥" or "≤" where all rates lie above or all below a curve, so that the rate is a bound; else empty.
    censored: how many of the rates lie beyond a curve and count as its end.
    flat: tasks whose curve is flat, left out.
    tasks: those that the mean is over.
    """

    rate: float | None
    low: float | None
    high: float | None
    censored: int
    flat: tuple[str, ...]
    bound: Literal["", "≥", "≤"] = ""
    tasks: tuple[str, ...] = ()


def across(rates: Mapping[str, ExchangeRate], ends: tuple[float, float]) -> Across:
    """The mean log exchange rate over tasks.

    Args:
        rates: task → exchange rate of the mixer.
        ends: the smallest and largest size of the curves, at which rates beyond them count.

    Returns:
        The geometric mean with its interval. A censored rate adds no error, so with one the interval is too narrow.
    """
    flat = tuple(task for task, rate in rates.items() if rate.flat)
    tasks = tuple(task for task, rate in rates.items() if not rate.flat)
    used = [rates[task] for task in tasks]
    if not used:
        return Across(None, None, None, 0, flat)
    logs = [math.log(_value(rate, ends)) for rate in used]
    error = math.sqrt(sum((rate.error or 0.0) ** 2 for rate in used)) / len(used)
    mean, half = sum(logs) / len(logs), float(ndtri(0.975)) * error
    censored = sum(rate.estimate is None for rate in used)
    if censored == len(used):
        beyond = {rate.beyond for rate in used}
        bound: Literal["", "≥", "≤"] = "" if len(beyond) > 1 else "≥" if "above" in beyond else "≤"
        return Across(math.exp(mean), None, None, censored, flat, bound, tasks)
    if len(used) == 1:  # the interval of that board, which may be open at one end
        return Across(math.exp(mean), used[0].low, used[0].high, 0, flat, tasks=tasks)
    return Across(math.exp(mean), math.exp(mean - half), math.exp(mean + half), censored, flat, tasks=tasks)


def _value(rate: ExchangeRate, ends: tuple[float, float]) -> float:
    if rate.estimate is not None:
        return rate.estimate
    return ends[1] if rate.beyond == "above" else ends[0]


def wins_ties_losses(verdicts: Sequence[Verdict]) -> tuple[int, int, int]:
    """Counts verdicts over tasks.

    Args:
        verdicts: one per task.

    Returns:
        Wins, ties (equivalent or undecided) and losses.
    """
    counts = Counter(verdicts)
    return counts["better"], counts["equivalent"] + counts["undecided"], counts["worse"]
