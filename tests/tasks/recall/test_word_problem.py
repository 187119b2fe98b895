"""`parity`, `s3` and `s5`: their targets against naive loops, the order of products, and splits that share nothing."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import tasks
from tasks.recall.sampling import SPLITS, drawn_apart, split_of
from tasks.recall.word_problem import multiplication
from tests.tasks.recall.recall_sequences import made, sequences

NAMES = ("parity", "s3", "s5")
POINTS = {"s3": 3, "s5": 5}


def check_products(name: str, inputs: list[int], targets: list[int]) -> None:
    """One sequence against the rule, by hand: every point is sent through all permutations so far, one after another.
    Parity has one permutation of two points for a one, and the identity for a zero.
    """
    points = POINTS.get(name, 2)
    elements = list(itertools.permutations(range(points)))
    for t, target in enumerate(targets):
        ends = []
        for point in range(points):
            for token in inputs[: t + 1]:
                point = elements[token][point]
            ends.append(point)
        assert elements[target] == tuple(ends)


@pytest.mark.parametrize("name", NAMES)
def test_every_target_is_the_product_of_all_elements_so_far(name):
    task = made(name, length=11)
    for split in SPLITS:
        for inputs, targets in sequences(task, split)[:24]:
            assert len(inputs) == len(targets) == 11
            check_products(name, inputs, targets)


def test_parity_counts_the_ones():
    for inputs, targets in sequences(made("parity")):
        assert targets == [sum(inputs[: t + 1]) % 2 for t in range(64)]


@pytest.mark.parametrize("name", NAMES)
def test_planted_errors_in_products_are_found(name):
    inputs, targets = sequences(made(name, length=11))[0]
    order = {"parity": 2, "s3": 6, "s5": 120}[name]
    late = [0, *targets[:-1]]
    wrong = [*targets[:-1], (targets[-1] + 1) % order]
    for planted in (late, wrong):
        with pytest.raises(AssertionError):
            check_products(name, inputs, planted)


@pytest.mark.parametrize("name", POINTS)
def test_products_in_the_opposite_order_are_found(name):
    inputs, _ = sequences(made(name, length=11))[0]
    table = multiplication(POINTS[name]).tolist()
    opposite = list(itertools.accumulate(inputs, lambda a, b: table[b][a]))
    with pytest.raises(AssertionError):
        check_products(name, inputs, opposite)


@pytest.mark.parametrize("points", [2, 3, 4])
def test_the_multiplication_table_is_that_of_a_group(points):
    table = multiplication(points)
    everything = list(range(len(table)))
    assert table[0].tolist() == table[:, 0].tolist() == everything
    assert all(sorted(row) == everything for row in [*table.tolist(), *table.T.tolist()])
    assert np.array_equal(table[table], table[:, table])  # (a b) c = a (b c)
    assert (table == table.T).all() == (points == 2)


@pytest.mark.parametrize(("name", "order"), [("parity", 2), ("s3", 6), ("s5", 120)])
def test_elements_and_products_are_spread_evenly(name, order):
    """So that chance is 1 in the number of elements, at every position and in every split."""
    task = made(name, length=16, train_examples=2048, valid_examples=2048, test_examples=2048)
    assert task.spec.vocab == order
    for split in SPLITS:
        drawn = sequences(task, split)
        for place in range(2):
            counts = Counter(token for pair in drawn for token in pair[place])
            assert set(counts) == set(range(order))
            expected = 2048 * 16 / order
            deviations = sum((n - expected) ** 2 / expected for n in counts.values())
            assert deviations < order + 5 * np.sqrt(2 * order)


@pytest.mark.parametrize(
    ("name", "moved", "count"), [("s3", 2, 4), ("s3", 3, 6), ("s5", 2, 11), ("s5", 3, 31), ("s5", 4, 76)]
)
def test_tokens_move_at_most_the_given_number_of_points(name, moved, count):
    task = made(name, length=16, moved=moved)
    elements = list(itertools.permutations(range(POINTS[name])))
    drawn = sequences(task)
    tokens = {token for inputs, _ in drawn for token in inputs}
    assert len(tokens) == count
    assert all(sum(a != b for a, b in enumerate(elements[token])) <= moved for token in tokens)
    assert len({target for _, targets in drawn for target in targets}) == len(elements)
    for inputs, targets in drawn[:24]:
        check_products(name, inputs, targets)


# --- Splits
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_is_in_two_splits_even_where_there_are_few(name):
    task = made(name, length=8, train_examples=2048, valid_examples=512, test_examples=512)
    train, valid, test = ({tuple(inputs) for inputs, _ in sequences(task, split)} for split in SPLITS)
    assert train.isdisjoint(valid | test)
    assert valid.isdisjoint(test)
    assert min(len(train), len(valid), len(test)) > 16


def test_a_quarter_of_all_sequences_is_held_out_whatever_their_parity():
    strings = np.array(list(itertools.product(range(2), repeat=14)))
    parts = split_of(strings)
    assert np.bincount(parts) / len(strings) == pytest.approx([0.75, 0.125, 0.125], abs=0.015)
    for part in range(3):
        for tokens in (strings.sum(1) % 2, *strings.T):
            assert tokens[parts == part].mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_drawn_again_until_they_belong_to_the_split(split):
    random = np.random.default_rng(0)
    free = np.arange(200) < 50
    first = random.integers(3, size=(200, 9))
    random = np.random.default_rng(0)
    rows = drawn_apart(lambda places: random.integers(3, size=(len(places), 9)), 200, split, free)
    assert np.array_equal(rows[free], first[free])
    parts = split_of(rows[~free])
    assert set(parts.tolist()) == {SPLITS.index(split)}


# --- Ladders and options
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_ladder_of_lengths_scores_exactly_the_tokens_of_each_rung(name):
    task = made(name, length=24, ladder="8,12,24", valid_examples=48, test_examples=48)
    for split in SPLITS:
        drawn = sequences(task, split)
        for i, (inputs, targets) in enumerate(drawn):
            length = (8, 12, 24)[i % 3]
            assert inputs[length:] == [0] * (24 - length)
            assert targets[length:] == [-100] * (24 - length)
            check_products(name, inputs[:length], targets[:length])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 7}, "greater than or equal to 8"),
        ({"length": 32, "ladder": "4,32"}, "lengths of at least 8"),
        ({"length": 64, "ladder": "8,32"}, "must end at length, which is 64: set both, or ladder= for length alone"),
        ({"vocab": 2}, "vocab"),
        ({"moved": 6}, "moved"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_impossible_options_of_word_problems_are_refused(name, options, message):
    with pytest.raises(ValidationError, match=message):
        tasks.get(name).Options(**options)


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_word_problems_are_the_documented_ones(name):
    o: Any = tasks.get(name)().options
    assert (o.length, o.ladder, o.train_examples, o.valid_examples, o.test_examples) == (64, "", 100_000, 3000, 3000)
