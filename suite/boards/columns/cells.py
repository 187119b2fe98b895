"""The cells of boards: values of a row for JSON, and the texts of tables (of a row and its board) where these are not
the values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from suite.boards.board import Board
from suite.boards.rows import Row
from suite.boards.words import NOTHING, UNVERIFIED
from suite.config.run_config import BUILT_IN, OWN_ORIGINS

#: Options that say where a mixer has short convolutions.
CONVOLUTIONS = ("convolution", "places")
#: Metrics of the rungs of a ladder of difficulties, and the accuracy from which on a rung counts as solved.
RUNG, SOLVED = "accuracy_", 0.99


def parameters(row: Row, board: Board) -> str:
    return f"{row.first.certificate.parameters:,} ({row.first.certificate.ratio:.3f}×)"


def flops_verified(row: Row) -> bool:
    """The suite's tests compare the formulas of its own mixers with a count; of others, the record's word counts, which
    `suite verify` replays.
    """
    return row.first.config.mixer_origin in OWN_ORIGINS or row.first.certificate.flops_verified is True


def flops(row: Row, board: Board) -> str:
    ratio = f"{row.first.certificate.flops / row.first.certificate.reference_flops:.2f}×"
    return ratio if flops_verified(row) else f"{ratio} {UNVERIFIED}"


def timed(name: str) -> Callable[[Row], float | None]:
    """A speed of the first run that has it. Runs are timed while other processes run, on machines of their own."""

    def value(row: Row) -> float | None:
        found = (getattr(made.timing, name) for made in row.records if made.timing)
        return next((speed for speed in found if speed is not None), None)

    return value


def speed(name: str) -> Callable[[Row, Board], str]:
    def text(row: Row, board: Board) -> str:
        found = timed(name)(row)
        return NOTHING if found is None else f"{found:,.0f}"

    return text


def machines(row: Row) -> str:
    """The processors of all runs of a row; the GPU where they computed on one."""
    found = (made.hardware for made in row.records)
    return ", ".join(sorted({each.processor if each.device == "cpu" else each.device for each in found}))


def contract(row: Row) -> bool | None:
    """Whether the mixer contract holds: the suite's tests check that of its own mixers, the record of another mixer
    says what `suite check` or `suite enter` found.
    """
    if row.first.config.mixer_origin == BUILT_IN:
        return True
    outcomes = [made.contract.checked if made.contract else None for made in row.records]
    return False if False in outcomes else (None if None in outcomes else True)


def of_split(split: Literal["valid", "test"]) -> Callable[[Row], list[float]]:
    return lambda row: [made.metrics[split][made.primary_metric] for made in row.records if split in made.metrics]


def valid(row: Row) -> float | None:
    values = of_split("valid")(row)
    return sum(values) / len(values) if values else None


def difference(row: Row) -> dict[str, float] | None:
    compared = row.figures.compared if row.figures else None
    if compared is None:
        return None
    low, high = compared.difference.interval()
    better = {"estimate": compared.difference.estimate, "low": low, "high": high, "error": compared.difference.error}
    return {**better, "p": compared.difference.p, "p_adjusted": compared.p}


def p(row: Row) -> float | None:
    compared = row.figures.compared if row.figures else None
    return compared.p if compared else None


def race(row: Row) -> dict[str, Any] | None:
    if row.race is None:
        return None
    return {name: getattr(row.race, name) for name in ("rates", "chosen", "runs", "planned")}


def runs_spent(row: Row, board: Board) -> str:
    race = row.race
    if race is None or not race.runs:
        return NOTHING
    return f"{race.runs}, lr {race.chosen:g}" if race.chosen is not None else f"{race.runs} of {race.planned}"


def convolution(row: Row) -> bool | None:
    """Whether a row's model has short convolutions: its mixer's own, or those of `model.canon`.

    Args:
        row: any row.

    Returns:
        None where that is unknown, for a third party's mixer.
    """
    first = row.first
    if first.config.model.canon != "none":
        return True
    if not first.recounted:
        return None
    return any(bool(getattr(first.certificate.mixer_options, name, False)) for name in CONVOLUTIONS)


def kilobytes(row: Row, board: Board) -> str:
    return f"{row.first.certificate.state_bytes / 1024:,.1f}" if row.first.certificate.state_bytes else NOTHING


def verdict(row: Row) -> str:
    return (row.figures.verdict if row.figures else None) or NOTHING


def from_figures(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.figures, name) if row.figures else None


def rank(row: Row) -> list[int] | None:
    rank = row.figures.rank if row.figures else None
    return None if rank is None else [rank.first, rank.last]


def solved(row: Row) -> dict[str, float] | None:
    """Rung of a ladder → the fraction of seeds that solve it on validation; None without a ladder."""
    splits = [made.metrics["valid"] for made in row.records if "valid" in made.metrics]
    rungs = [name for name in splits[0] if name.startswith(RUNG)] if splits else []
    found = {name.removeprefix(RUNG): sum(values[name] >= SOLVED for values in splits) / len(splits) for name in rungs}
    return dict(sorted(found.items(), key=lambda each: int(each[0]))) or None


def solved_text(row: Row, board: Board) -> str:
    found = solved(row)
    if found is None:
        return NOTHING
    seeds = len(row.records)
    return ", ".join(f"{rung}: {round(fraction * seeds)}/{seeds}" for rung, fraction in found.items())


def badge(row: Row) -> dict[str, Any] | None:
    held = row.badge
    if held is None:
        return None
    badge = held.badge
    shown = {"badge": badge.kind, "runs": held.count, "of": held.records, "day": badge.day, "machine": badge.machine}
    return shown if badge.figures is None else shown | {"figures": badge.figures.model_dump(mode="json")}


def badge_text(row: Row, board: Board) -> str:
    held = row.badge
    if held is None:
        return NOTHING
    runs = "" if held.badge.kind == "reported" else f" {held.count} of {held.records} runs"
    return f"{held.badge.kind}{runs}, {held.badge.day}, {held.badge.machine}"
