"""The order of a board against that of another scale: its note, its JSON, and the summary over tasks."""

from __future__ import annotations

import pytest

from suite.boards.board import Board, boards
from suite.boards.domains import across_domains, one_per_task
from suite.boards.markdown import markdown
from suite.boards.notes import scope
from suite.boards.plain import plain
from suite.records.schema import Record
from tests.suite.tiny import made_record

MEANS = {"softmax": 0.70, "fem": 0.74, "ssm": 0.78, "no-mixing": 0.40}


def runs(means: dict[str, float], scale: str, sets: tuple[str, ...] = ()) -> list[Record]:
    return [
        made_record(mixer, mean + 0.001 * seed, seed=seed, name=f"{mixer}-{seed}-{scale}", scale=scale, sets=sets)
        for mixer, mean in means.items()
        for seed in (0, 1, 2)
    ]


def both(small: dict[str, float], sets: tuple[str, ...] = ()) -> list[Board]:
    return boards(runs(MEANS, "board") + runs(small, "small", sets))


def test_both_boards_print_tau_with_its_interval_and_the_mixers_it_is_of():
    found = both({"softmax": 0.80, "fem": 0.84, "no-mixing": 0.5})
    for board, other in zip(found, ("small", "board"), strict=True):
        said = f"order against {other}: Kendall's τ 1.00 (1.00 to 1.00 over seeds) of 3 mixers: fem, softmax, no-mixing"
        assert said in markdown(board)
        assert said in scope(board)
        [order] = plain(board)["orders"]
        assert order == {"scale": other, "mixers": ["fem", "softmax", "no-mixing"], "tau": 1.0, "low": 1.0, "high": 1.0}


def test_an_order_that_turns_round_has_a_lower_tau():
    [board, _] = both({"softmax": 0.80, "fem": 0.84, "ssm": 0.70, "no-mixing": 0.5})
    assert board.orders[0].agreement.tau == pytest.approx(1 / 3)  # 2 of 6 pairs turned


def test_a_board_shown_alone_keeps_its_order_against_the_others():
    every = runs(MEANS, "board") + runs(MEANS, "small")
    [alone] = boards(every, scale="board")
    assert [order.scale for order in alone.orders] == ["small"]


@pytest.mark.parametrize(
    ("small", "sets"),
    [({"softmax": 0.8, "fem": 0.9}, ()), (MEANS, ("steps=10",)), ({}, ())],
    ids=["two rows", "another recipe", "one scale"],
)
def test_without_three_rows_of_the_recipe_nothing_is_said(small, sets):
    for board in both(small, sets):
        assert not board.orders
        assert "orders" not in plain(board)
        assert "It does not show whether the order holds at a larger scale" in scope(board)


def test_a_second_scale_of_a_task_is_no_further_task_of_the_summary():
    found = both({"softmax": 0.80, "fem": 0.84, "no-mixing": 0.5})
    assert [board.scale for board in one_per_task(found)] == ["board"]
    assert {line.tasks for line in across_domains(one_per_task(found))} == {1}
