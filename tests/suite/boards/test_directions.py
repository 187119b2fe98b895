"""What a board does, with an accuracy and with an error: order, ranks, choice on validation, precision, failed runs."""

from __future__ import annotations

import pytest

from suite.boards.board import boards
from suite.boards.rows import select
from tasks.base import Metric
from tests.suite.tiny import made_record

TASKS = {"fashion-mnist": True, "household-power": False}


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def good(task):
    """A value by its quality from 0 to 1, in the direction of the task's metric."""
    return (lambda quality: quality) if TASKS[task] else (lambda quality: 1 - quality)


def only(records):
    found = boards(records)
    assert len(found) == 1
    return found[0]


def test_the_better_row_is_first(task, good):
    qualities = {"softmax": 0.3, "fem": 0.7, "no-mixing": 0.5}
    rows = only([made_record(mixer, good(q), task=task) for mixer, q in qualities.items()]).rows
    assert [row.mixer for row in rows] == ["fem", "no-mixing", "softmax"]
    assert [row.place for row in rows] == [1, 2, 3]


def test_an_unmatched_row_is_last_however_good_it_is(task, good):
    rows = only(
        [
            made_record("softmax", good(0.3), task=task),
            made_record("fem", good(0.9), task=task, matched=False),
            made_record("no-mixing", good(0.5), task=task),
        ]
    ).rows
    assert [(row.mixer, row.place) for row in rows] == [("no-mixing", 1), ("softmax", 2), ("fem", None)]


def test_validation_chooses_the_learning_rate_and_the_test_does_not(task, good):
    rates = [(0.1, 0.2, 0.9), (0.2, 0.6, 0.3), (0.3, 0.5, 0.8)]  # rate, quality on validation, quality on test
    made = only([made_record("fem", good(t), valid=good(v), task=task, sets=(f"lr={rate}",)) for rate, v, t in rates])
    assert [row.mean for row in made.rows] == [good(0.3)]
    assert made.other_rates == 2


def test_of_a_repeated_seed_the_newest_counts_even_if_it_is_worse(task, good):
    records = [made_record("fem", good(q), task=task, name=name) for q, name in ((0.9, "old"), (0.2, "new"))]
    [row] = only(records).rows
    assert [run.id for run in row.records] == ["new"]


def test_runs_of_another_precision_are_never_compared(task, good):
    one, other = made_record("softmax", good(0.3), task=task), made_record("fem", good(0.5), task=task)
    other = other.model_copy(update={"precision": "bf16"})
    assert len(boards([one])) == 1
    found = boards([one, other])
    assert sorted(tuple(row.mixer for row in board.rows) for board in found) == [("fem",), ("softmax",)]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_failed_is_not_shown_although_it_has_figures(task, good, status):
    finished = made_record("softmax", good(0.3), task=task)
    failed = made_record("fem", good(0.9), task=task).model_copy(update={"status": status, "error": "the reason"})
    assert failed.metrics["test"]
    made = only([finished, failed])
    assert [row.mixer for row in made.rows] == ["softmax"]
    assert made.unfinished == 1
    rerun = made_record("softmax", good(0.9), task=task, name="later").model_copy(update={"status": status})
    metric = Metric(finished.primary_metric, finished.higher_is_better)
    assert [chosen.runs for chosen in select([finished, rerun], metric).rows] == [(finished,)]
