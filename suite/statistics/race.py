"""The race: how many runs each mixer gets, and which learning rate its row has.

Every rate runs on the first seeds, the best two on all seeds, and the mean validation figure over all seeds chooses. A
single trial per rate would let every seed of the row share one noisy choice: on equal curves with rates one deviation
apart, 22 of 100 comparisons at level .05 would be false, against 6 in the race. The functions here see validation
figures only, so no choice can depend on the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

#: (learning rate, seed) → validation figure, with the sign that makes larger ones better.
Scored = Mapping[tuple[float, int], float]


@dataclass(frozen=True)
class Race:
    """The plan of one mixer's runs, the same for every mixer of a board.

    rates: learning rates, ascending, a constant factor apart.
    seeds: of the row.
    first_seeds: how many of them every rate runs on.
    kept: how many rates run on all seeds; with all of them, there is no elimination.
    moves: how often the window may move by one rate when the chosen one is at its edge.
    """

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    first_seeds: int = 4
    kept: int = 2
    moves: int = 2

    def __post_init__(self) -> None:
        if not self.rates or list(self.rates) != sorted(set(self.rates)):
            raise ValueError(f"the rates of a race ascend, got {self.rates}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"the seeds of a race differ, got {self.seeds}")

    @property
    def runs(self) -> int:
        """The number of runs without moves of the window."""
        first, kept = min(self.first_seeds, len(self.seeds)), min(self.kept, len(self.rates))
        return len(self.rates) * first + kept * (len(self.seeds) - first)

    def runs_with(self, rates: Sequence[float]) -> int:
        """The number of runs where the window has moved: a new rate runs on all seeds.

        Args:
            rates: every rate of the race so far.

        Returns:
            A number of runs.
        """
        return self.runs + (len(rates) - len(self.rates)) * len(self.seeds)


@dataclass(frozen=True)
class State:
    """What is known of a race.

    missing: runs that can start now, as (learning rate, seed), in the order in which they should start.
    chosen: the row's rate; None until the race has ended.
    rates: every rate of the race so far, ascending, those of moved windows included.
    means: rate → mean validation figure over all seeds, of the rates that ran on all of them.
    """

    missing: tuple[tuple[float, int], ...]
    chosen: float | None
    rates: tuple[float, ...]
    means: Mapping[float, float]


def state(race: Race, scored: Scored) -> State:
    """What a race should run next, or its result. A pure function of the finished runs, so a race that was interrupted
    continues from its records.

    Args:
        race: the plan.
        scored: the validation figures of the runs that have ended; a diverged run has the untrained model's figure.
            Runs outside the plan are ignored.

    Returns:
        The runs that are missing, or the chosen rate.
    """
    first = race.seeds[: race.first_seeds]
    missing = _missing(race.rates, first, scored)
    if missing:
        return State(missing, None, race.rates, {})
    if race.kept >= len(race.rates):
        finalists = race.rates
    else:  # of equal figures the smaller rate, so that the order of runs decides nothing
        ordered = sorted(race.rates, key=lambda rate: (-_mean(rate, first, scored), rate))
        finalists = tuple(sorted(ordered[: race.kept]))
    return _decide(race, race.rates, finalists, race.moves, scored)


def _decide(race: Race, rates: tuple[float, ...], finalists: tuple[float, ...], moves: int, scored: Scored) -> State:
    missing = _missing(finalists, race.seeds, scored)
    means = {rate: _mean(rate, race.seeds, scored) for rate in finalists if not _missing((rate,), race.seeds, scored)}
    if missing:
        return State(missing, None, rates, means)
    best = min(finalists, key=lambda rate: (-means[rate], rate))
    beyond = _beyond(rates, best)
    if beyond is None or not moves:
        return State((), best, rates, means)
    return _decide(race, tuple(sorted((*rates, beyond))), tuple(sorted((*finalists, beyond))), moves - 1, scored)


def _beyond(rates: tuple[float, ...], best: float) -> float | None:
    """The next rate outside the window where the best one is at its edge."""
    if len(rates) < 2:
        return None
    if best == rates[-1]:
        return float(f"{best * rates[-1] / rates[-2]:.6g}")
    if best == rates[0]:
        return float(f"{best * rates[0] / rates[1]:.6g}")
    return None


def reachable(race: Race) -> tuple[float, ...]:
    """Every rate that a race may come to.

    Args:
        race: the plan.

    Returns:
        Its rates and those of its window's moves to either side, ascending.
    """
    rates = race.rates
    for _ in range(race.moves):
        further = (_beyond(rates, rates[0]), _beyond(rates, rates[-1]))
        rates = tuple(sorted({*rates, *(rate for rate in further if rate is not None)}))
    return rates


def _missing(rates: tuple[float, ...], seeds: tuple[int, ...], scored: Scored) -> tuple[tuple[float, int], ...]:
    return tuple((rate, seed) for seed in seeds for rate in rates if (rate, seed) not in scored)


def _mean(rate: float, seeds: tuple[int, ...], scored: Scored) -> float:
    return fmean(scored[rate, seed] for seed in seeds)


def window(centre: float, count: int = 3, factor: float = 3.0) -> tuple[float, ...]:
    """The rates of a race around the recipe's.

    Args:
        centre: the recipe's learning rate.
        count: of rates.
        factor: between neighbours.

    Returns:
        Ascending rates of four significant digits; with an even count the larger side has one more.
    """
    below = (count - 1) // 2
    return tuple(centre if i == below else float(f"{centre * factor ** (i - below):.4g}") for i in range(count))
