"""The one table of board columns: what the terminal, Markdown, JSON and the tracking store show of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from suite.boards import words
from suite.boards.board import Board
from suite.boards.rows import Row
from suite.boards.words import NOTHING, UNVERIFIED
from suite.config.run_config import BUILT_IN, OWN_ORIGINS
from suite.tracking.ranked_board import PLACE
from tasks.base import Metric

#: Metrics of the rungs of a ladder of difficulties, and the accuracy from which on a rung counts as solved.
RUNG, SOLVED = "accuracy_", 0.99


@dataclass(frozen=True)
class Column:
    """A column of every board. A new one is one entry of `COLUMNS`.

    name: unique; the key in JSON.
    value: of a row, as a plain JSON value; None where it is unknown.
    header: of tables; empty: no column of tables. `{metric}` stands for the primary metric with unit and direction.
    text: of a table's cell; None: the value itself.
    align: of a table's cells.
    wraps: whether its cells and header may take several lines on a narrow terminal.
    priority: the order in which columns are left out of a narrow terminal, the highest first; 0: never left out.
    optional: whether tables leave it out where no row has a value.
    muted: whether it is grey on pages: its values are no comparison.
    json: whether JSON has it.
    mlflow: the column of the tracking store's table of runs; empty: none. `{metric}` stands for the metric's name.
    ranked: the metric that the tracking store has of a row; empty: none.
    """

    name: str
    value: Callable[[Row], Any]
    header: str = ""
    text: Callable[[Row, Board], str] | None = None
    align: Literal["left", "right"] = "right"
    wraps: bool = False
    priority: int = 0
    optional: bool = False
    muted: bool = False
    json: bool = True
    mlflow: str = ""
    ranked: str = ""

    def title(self, board: Board) -> str:
        """The header of the column on a board.

        Args:
            board: the board.

        Returns:
            The header, with the board's metric filled in.
        """
        metric = board.metric
        unit = f", {metric.unit}" if metric.unit not in ("", "%") else ""
        return self.header.replace("{metric}", f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}")

    def cell(self, row: Row, board: Board) -> str:
        """The text of the column in a row.

        Args:
            row: one row of the board.
            board: the board.

        Returns:
            The text; a dash where the value is unknown.
        """
        value = self.value(row)
        if value is None and self.text is None:
            return NOTHING
        return self.text(row, board) if self.text else str(value)

    def key(self, metric: Metric) -> str:
        """The column of the tracking store.

        Args:
            metric: the primary metric.

        Returns:
            `metrics.NAME`, `tags.NAME`, or an empty string where the store has none.
        """
        return self.mlflow.replace("{metric}", metric.name)


def table_columns(board: Board) -> tuple[Column, ...]:
    """The columns of a board's tables.

    Args:
        board: the board.

    Returns:
        Those with a header, in their order; optional ones only where a row has a value.
    """
    return tuple(
        column
        for column in COLUMNS
        if column.header and not (column.optional and all(column.value(row) is None for row in board.rows))
    )


def _parameters(row: Row, board: Board) -> str:
    return f"{row.first.certificate.parameters:,} ({row.first.certificate.ratio:.3f}×)"


def _flops_verified(row: Row) -> bool:
    """The suite's tests compare the formulas of its own mixers with a count; of others, the record's word counts, which
    `suite verify` replays.
    """
    return row.first.config.mixer_origin in OWN_ORIGINS or row.first.certificate.flops_verified is True


def _flops(row: Row, board: Board) -> str:
    ratio = f"{row.first.certificate.flops / row.first.certificate.reference_flops:.2f}×"
    return ratio if _flops_verified(row) else f"{ratio} {UNVERIFIED}"


def _timed(name: str) -> Callable[[Row], float | None]:
    """A speed of the first run that has it. Runs are timed while other processes run, on machines of their own."""

    def value(row: Row) -> float | None:
        found = (getattr(made.timing, name) for made in row.records if made.timing)
        return next((speed for speed in found if speed is not None), None)

    return value


def _speed(name: str) -> Callable[[Row, Board], str]:
    def text(row: Row, board: Board) -> str:
        speed = _timed(name)(row)
        return NOTHING if speed is None else f"{speed:,.0f}"

    return text


def _machines(row: Row) -> str:
    """The processors of all runs of a row; the GPU where they computed on one."""
    found = (made.hardware for made in row.records)
    return ", ".join(sorted({each.processor if each.device == "cpu" else each.device for each in found}))


def _contract(row: Row) -> bool | None:
    """Whether the mixer contract holds: the suite's tests check that of its own mixers, the record of another mixer
    says what `suite check` or `suite enter` found.
    """
    if row.first.config.mixer_origin == BUILT_IN:
        return True
    outcomes = [made.contract.checked if made.contract else None for made in row.records]
    return False if False in outcomes else (None if None in outcomes else True)


def _of_split(split: Literal["valid", "test"]) -> Callable[[Row], list[float]]:
    return lambda row: [made.metrics[split][made.primary_metric] for made in row.records if split in made.metrics]


def _valid(row: Row) -> float | None:
    values = _of_split("valid")(row)
    return sum(values) / len(values) if values else None


def _difference(row: Row) -> dict[str, float] | None:
    compared = row.figures.compared if row.figures else None
    if compared is None:
        return None
    low, high = compared.difference.interval()
    better = {"estimate": compared.difference.estimate, "low": low, "high": high, "error": compared.difference.error}
    return {**better, "p": compared.difference.p, "p_adjusted": compared.p}


def _p(row: Row) -> float | None:
    compared = row.figures.compared if row.figures else None
    return compared.p if compared else None


def _race(row: Row) -> dict[str, Any] | None:
    if row.race is None:
        return None
    return {name: getattr(row.race, name) for name in ("rates", "chosen", "runs", "planned")}


def _runs_spent(row: Row, board: Board) -> str:
    race = row.race
    if race is None or not race.runs:
        return NOTHING
    return f"{race.runs}, lr {race.chosen:g}" if race.chosen is not None else f"{race.runs} of {race.planned}"


def convolution(row: Row) -> bool | None:
    """Whether a row's mixer has a short convolution of its own.

    Args:
        row: any row.

    Returns:
        None where that is unknown, for a third party's mixer.
    """
    first = row.first
    if not first.recounted:
        return None
    return bool(getattr(first.certificate.mixer_options, "convolution", False))


def _kilobytes(row: Row, board: Board) -> str:
    return f"{row.first.certificate.state_bytes / 1024:,.1f}" if row.first.certificate.state_bytes else NOTHING


def _verdict(row: Row) -> str:
    return (row.figures.verdict if row.figures else None) or NOTHING


def _from_figures(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.figures, name) if row.figures else None


def _rank(row: Row) -> list[int] | None:
    rank = row.figures.rank if row.figures else None
    return None if rank is None else [rank.first, rank.last]


def _solved(row: Row) -> dict[str, float] | None:
    """Rung of a ladder → the fraction of seeds that solve it on validation; None without a ladder."""
    splits = [made.metrics["valid"] for made in row.records if "valid" in made.metrics]
    rungs = [name for name in splits[0] if name.startswith(RUNG)] if splits else []
    found = {name.removeprefix(RUNG): sum(values[name] >= SOLVED for values in splits) / len(splits) for name in rungs}
    return dict(sorted(found.items(), key=lambda each: int(each[0]))) or None


def _solved_text(row: Row, board: Board) -> str:
    found = _solved(row)
    if found is None:
        return NOTHING
    seeds = len(row.records)
    return ", ".join(f"{rung}: {round(fraction * seeds)}/{seeds}" for rung, fraction in found.items())


def _badge(row: Row) -> dict[str, Any] | None:
    held = row.badge
    if held is None:
        return None
    badge = held.badge
    shown = {"badge": badge.kind, "runs": held.count, "of": held.records, "day": badge.day, "machine": badge.machine}
    return shown if badge.figures is None else shown | {"figures": badge.figures.model_dump(mode="json")}


def _badge_text(row: Row, board: Board) -> str:
    held = row.badge
    if held is None:
        return NOTHING
    runs = "" if held.badge.kind == "reported" else f" {held.count} of {held.records} runs"
    return f"{held.badge.kind}{runs}, {held.badge.day}, {held.badge.machine}"


COLUMNS: tuple[Column, ...] = (
    Column("place", lambda row: row.place, "rank", lambda row, _: words.place(row), ranked=PLACE),
    Column("rank", _rank),
    Column("unranked", lambda row: row.unranked or None),
    Column("mixer", lambda row: row.mixer, "mixer", align="left", mlflow="tags.mixer"),
    Column("scale", lambda row: row.first.scale, json=False, mlflow="tags.scale"),
    Column("seed", lambda row: row.first.seed, json=False, mlflow="tags.seed"),
    Column("matched", lambda row: row.first.certificate.matched, mlflow="tags.matched"),
    Column(
        "mean",
        lambda row: row.mean,
        "test {metric}",
        lambda row, board: words.value(row, board.metric),
        mlflow="metrics.test/{metric}",
        ranked="value",
    ),
    Column("sd", lambda row: row.spread),
    Column("half_width", _from_figures("half_width"), ranked="half_width"),
    Column(
        "difference",
        _difference,
        "to softmax (95 %)",
        lambda row, board: words.difference(row, board.metric),
        priority=2,
    ),
    Column("verdict", _from_figures("verdict"), "verdict", lambda row, _: _verdict(row), priority=3),
    Column("p", _p, "p", lambda row, _: words.p_value(row), priority=4, json=False),
    Column(
        "exchange",
        words.exchange_values,
        "worth (parameters)",
        lambda row, _: words.exchange(row),
        priority=1,
        ranked="exchange_rate",
    ),
    Column("optimism", _from_figures("optimism")),
    Column("valid", _valid, json=False, mlflow="metrics.valid/{metric}"),
    Column(
        "seeds",
        lambda row: [made.seed for made in row.records],
        "seeds",
        lambda row, _: str(len(row.records)),
        priority=5,
        ranked="seeds",
    ),
    Column("race", _race, "runs", _runs_spent, priority=7),
    Column("diverged", lambda row: {str(seed): why for seed, why in row.diverged.items()}),
    Column("runs", lambda row: [made.id for made in row.records]),
    Column("mixer_options", lambda row: row.first.certificate.mixer_options.model_dump(mode="json")),
    Column("values", _of_split("test")),
    Column("solved", _solved, "seeds that solve each rung", _solved_text, wraps=True, priority=5, optional=True),
    Column(
        "parameters",
        lambda row: row.first.certificate.parameters,
        "parameters (of softmax's)",
        _parameters,
        wraps=True,
        priority=6,
        mlflow="metrics.budget/parameters",
    ),
    Column("ratio", lambda row: row.first.certificate.ratio),
    Column(
        "flops",
        lambda row: row.first.certificate.flops,
        "FLOPs",
        _flops,
        priority=9,
        mlflow="metrics.budget/flops",
        ranked="flops",
    ),
    Column("flops_verified", _flops_verified),
    Column("reference_flops", lambda row: row.first.certificate.reference_flops),
    Column(
        "convolution",
        convolution,
        "conv",
        lambda row, _: {True: "yes", False: "no", None: "?"}[convolution(row)],
        priority=8,
    ),
    Column(
        "state_bytes",
        lambda row: row.first.certificate.state_bytes,
        "state kB",
        _kilobytes,
        priority=8,
        ranked="state_bytes",
    ),
    Column(
        "pareto",
        lambda row: list(row.fronts) or None,
        "Pareto front",
        lambda row, _: ", ".join(row.fronts) or NOTHING,
        priority=8,
        optional=True,
    ),
    Column(
        "contract",
        _contract,
        "contract",
        lambda row, _: {True: "holds", False: "fails", None: "not checked"}[_contract(row)],
        priority=9,
    ),
    Column(
        "examples_per_s",
        _timed("examples_per_s"),
        "examples/s",
        _speed("examples_per_s"),
        priority=10,
        muted=True,
        mlflow="metrics.time/examples_per_s",
    ),
    Column(
        "decoded_per_s",
        _timed("decoded_per_s"),
        "decoded tokens/s",
        _speed("decoded_per_s"),
        wraps=True,
        priority=10,
        optional=True,
        muted=True,
    ),
    Column("machine", _machines, "timed on", wraps=True, priority=10, muted=True),
    Column(
        "peak_memory_bytes",
        lambda row: row.first.peak_memory_bytes,
        "peak MB",
        lambda row, _: f"{row.first.peak_memory_bytes / 2**20:,.0f}",
        priority=11,
    ),
    Column("badge", _badge, "checked", _badge_text, align="left", wraps=True, priority=12, optional=True),
    Column("status", lambda row: row.first.status, json=False, mlflow="tags.result"),
)
