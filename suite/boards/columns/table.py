"""The one table of board columns: what the terminal, Markdown, JSON and the tracking store show of a row."""

from __future__ import annotations

from suite.boards import words
from suite.boards.board import Board
from suite.boards.columns import cells
from suite.boards.columns.column import Column
from suite.boards.words import NOTHING
from suite.tracking.ranked_board import PLACE

COLUMNS: tuple[Column, ...] = (
    Column("place", lambda row: row.place, "rank", lambda row, _: words.place(row), ranked=PLACE),
    Column("rank", cells.rank),
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
    Column("half_width", cells.from_figures("half_width"), ranked="half_width"),
    Column(
        "difference",
        cells.difference,
        "to softmax (95 %)",
        lambda row, board: words.difference(row, board.metric),
        priority=2,
    ),
    Column("verdict", cells.from_figures("verdict"), "verdict", lambda row, _: cells.verdict(row), priority=3),
    Column("p", cells.p, "p", lambda row, _: words.p_value(row), priority=4, json=False),
    Column(
        "exchange",
        words.exchange_values,
        "worth (parameters)",
        lambda row, _: words.exchange(row),
        priority=1,
        ranked="exchange_rate",
    ),
    Column("optimism", cells.from_figures("optimism")),
    Column("valid", cells.valid, json=False, mlflow="metrics.valid/{metric}"),
    Column(
        "seeds",
        lambda row: [made.seed for made in row.records],
        "seeds",
        lambda row, _: str(len(row.records)),
        priority=5,
        ranked="seeds",
    ),
    Column("race", cells.race, "runs", cells.runs_spent, priority=7),
    Column("diverged", lambda row: {str(seed): why for seed, why in row.diverged.items()}),
    Column("runs", lambda row: [made.id for made in row.records]),
    Column("mixer_options", lambda row: row.first.certificate.mixer_options.model_dump(mode="json")),
    Column("values", cells.of_split("test")),
    Column(
        "solved", cells.solved, "seeds that solve each rung", cells.solved_text, wraps=True, priority=5, optional=True
    ),
    Column(
        "parameters",
        lambda row: row.first.certificate.parameters,
        "parameters (of softmax's)",
        cells.parameters,
        wraps=True,
        priority=6,
        mlflow="metrics.budget/parameters",
    ),
    Column("ratio", lambda row: row.first.certificate.ratio),
    Column(
        "flops",
        lambda row: row.first.certificate.flops,
        "FLOPs",
        cells.flops,
        priority=9,
        mlflow="metrics.budget/flops",
        ranked="flops",
    ),
    Column("flops_verified", cells.flops_verified),
    Column("reference_flops", lambda row: row.first.certificate.reference_flops),
    Column(
        "convolution",
        cells.convolution,
        "conv",
        lambda row, _: {True: "yes", False: "no", None: "?"}[cells.convolution(row)],
        priority=8,
    ),
    Column(
        "state_bytes",
        lambda row: row.first.certificate.state_bytes,
        "state kB",
        cells.kilobytes,
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
        cells.contract,
        "contract",
        lambda row, _: {True: "holds", False: "fails", None: "not checked"}[cells.contract(row)],
        priority=9,
    ),
    Column(
        "examples_per_s",
        cells.timed("examples_per_s"),
        "examples/s",
        cells.speed("examples_per_s"),
        priority=10,
        muted=True,
        mlflow="metrics.time/examples_per_s",
    ),
    Column(
        "decoded_per_s",
        cells.timed("decoded_per_s"),
        "decoded tokens/s",
        cells.speed("decoded_per_s"),
        wraps=True,
        priority=10,
        optional=True,
        muted=True,
    ),
    Column("machine", cells.machines, "timed on", wraps=True, priority=10, muted=True),
    Column(
        "peak_memory_bytes",
        lambda row: row.first.peak_memory_bytes,
        "peak MB",
        lambda row, _: f"{row.first.peak_memory_bytes / 2**20:,.0f}",
        priority=11,
    ),
    Column("badge", cells.badge, "checked", cells.badge_text, align="left", wraps=True, priority=12, optional=True),
    Column("status", lambda row: row.first.status, json=False, mlflow="tags.result"),
)


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
