"""Pareto fronts of boards, and the rungs of a ladder that a row solves."""

from __future__ import annotations

import pytest

from suite.boards.board import boards
from suite.boards.columns.table import COLUMNS, table_columns
from suite.boards.markdown import markdown
from suite.boards.pareto import with_fronts
from suite.boards.plain import plain
from suite.boards.rows import Row
from tasks.base import Metric
from tests.suite.tiny import made_record


def row(mean: float, flops: int, state: int, unranked: str = "") -> Row:
    made = made_record("softmax", 0.5)
    certificate = made.certificate.model_copy(update={"flops": flops, "state_bytes": state})
    return Row("m", "m", (made.model_copy(update={"certificate": certificate}),), mean, unranked=unranked)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_row_is_on_a_front_where_no_row_with_a_rank_is_better_and_cheaper(higher_is_better):
    sign = 1 if higher_is_better else -1
    rows = [
        row(sign * 0.9, 300, 30),
        row(sign * 0.8, 200, 0),  # no state: on no front of it
        row(sign * 0.8, 250, 10),
        row(sign * 0.7, 100, 10),
        row(sign * 0.7, 100, 20),
        row(sign * 0.99, 50, 5, unranked="unmatched"),
    ]
    found = with_fronts(rows, Metric("figure", higher_is_better))
    assert [each.fronts for each in found] == [("FLOPs", "state"), ("FLOPs",), ("state",), ("FLOPs",), ("FLOPs",), ()]


def test_equal_rows_are_both_on_the_front():
    found = with_fronts([row(0.5, 100, 10), row(0.5, 100, 10)], Metric("figure", True))
    assert [each.fronts for each in found] == [("FLOPs", "state")] * 2


def test_a_board_shows_the_fronts_of_its_rows():
    [board] = boards([made_record("softmax", 0.5), made_record("fem", 0.6), made_record("no-mixing", 0.1)])
    fronts = {each["mixer"]: each["pareto"] for each in plain(board)["rows"]}
    assert fronts["fem"] == ["FLOPs"]
    assert "Pareto front" in markdown(board)


def test_a_ladder_shows_how_many_seeds_solve_each_rung():
    records = []
    for seed, figures in enumerate([(1.0, 0.99, 0.2), (1.0, 0.98, 0.1)]):
        made = made_record("softmax", 0.5, task="mqar", seed=seed)
        names = sorted((n for n in made.metrics["valid"] if n.startswith("accuracy_")), key=lambda n: int(n[9:]))
        rungs = dict(zip(names, [*figures, *[0.0] * len(names)], strict=False))
        metrics = {**made.metrics, "valid": {**made.metrics["valid"], **rungs}}
        records.append(made.model_copy(update={"metrics": metrics}).sealed())
    [board] = boards(records)
    [one] = plain(board)["rows"]
    assert list(one["solved"].values())[:3] == [1.0, 0.5, 0.0]
    [column] = [column for column in COLUMNS if column.name == "solved"]
    assert column.cell(board.rows[0], board).startswith("12: 2/2, 64: 1/2, 512: 0/2")
    assert column in table_columns(board)


def test_a_board_without_a_ladder_has_no_column_of_rungs():
    [board] = boards([made_record("softmax", 0.5)])
    assert "solved" not in {column.name for column in table_columns(board)}
