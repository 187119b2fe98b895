"""`mano`: its expressions parsed and evaluated recursively, their distribution, and which splits share them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.recall.base import IGNORED
from tasks.recall.mano import Mano, ManoOptions, prefix_expressions
from tasks.recall.sampling import SPLITS
from tests.tasks.recall.recall_sequences import made, sequences


def parsed(tokens: list[int], modulus: int, start: int = 0) -> tuple[int, int]:
    """The value of the expression that starts at a place, and the place after it: a recursive parser."""
    token = tokens[start]
    if token < modulus:
        return token, start + 1
    left, middle = parsed(tokens, modulus, start + 1)
    right, end = parsed(tokens, modulus, middle)
    return {"+": left + right, "-": left - right, "*": left * right}["+-*"[token - modulus]] % modulus, end


def check_mano(inputs: list[int], targets: list[int], o: ManoOptions) -> int:
    """One sequence against the rule, by hand.

    Returns:
        Its number of operations.
    """
    bos, ans = o.modulus + 3, o.modulus + 4
    end = inputs.index(ans)
    expression = inputs[2:end]
    operations = sum(token >= o.modulus for token in expression)
    value, after = parsed(expression, o.modulus)
    assert inputs[:2] == [bos, ans + operations]
    assert after == len(expression) == 2 * operations + 1
    assert max(expression) < bos
    assert inputs[end + 1 :] == [bos] * (len(inputs) - end - 1)
    assert targets == [value if t == end else IGNORED for t in range(len(inputs))]
    return operations


@pytest.mark.parametrize("options", [{}, {"length": 3, "modulus": 5}, {"length": 6, "shortest": 4}, {"length": 1}])
def test_the_only_target_is_the_value_of_the_expression(options):
    task = made("mano", **options)
    o = task.options
    assert (task.spec.length, task.spec.vocab) == (2 * o.length + 4, o.modulus + 5 + o.length)
    found = {check_mano(inputs, targets, o) for split in SPLITS for inputs, targets in sequences(task, split)}
    assert found == set(range(o.shortest, o.length + 1))


def test_the_example_of_the_docstring_has_its_value():
    assert parsed([25, 23, 5, 21, 24, 4, 9], 23) == (8, 7)
    assert "(5 + 21) · (4 - 9) mod 23 = 8" in (Mano.__doc__ or "")


def test_planted_errors_in_mano_are_found():
    task = made("mano", shortest=10)
    inputs, targets = sequences(task)[0]
    end = inputs.index(27)
    off = [y if y == IGNORED else (y + 1) % 23 for y in targets]
    late = [IGNORED, *targets[:-1]]
    for wrong in (off, late):
        with pytest.raises(AssertionError):
            check_mano(inputs, wrong, task.options)
    swapped = [49 - token if token in (23, 26) else token for token in inputs]
    for planted in (swapped, [*inputs[:1], inputs[1] - 1, *inputs[2:]], [*inputs[:end], 26, *inputs[end + 1 :]]):
        with pytest.raises((AssertionError, ValueError, IndexError)):
            check_mano(planted, targets, task.options)


@pytest.mark.parametrize("split", SPLITS)
def test_all_numbers_of_operations_are_equally_likely_in_every_split(split):
    task = made("mano", length=4, **{f"{split}_examples": 4096})
    counts = Counter(check_mano(inputs, targets, task.options) for inputs, targets in sequences(task, split))
    assert sum((n - 1024) ** 2 / 1024 for n in counts.values()) < 15  # 3 degrees of freedom: over 12.8 in 0.5 %


def left_operations(expression: list[int], modulus: int) -> int:
    """Operations in the left side of the first one."""
    _, middle = parsed(expression, modulus, 1)
    return (middle - 2) // 2


def test_trees_operations_and_numbers_are_drawn_evenly():
    drawn = prefix_expressions(np.random.default_rng(0), np.full(6000, 4), 5, 7).tolist()
    assert all(row[9:] == [-1, -1] for row in drawn)
    counts = [
        Counter(left_operations(row, 7) for row in drawn),
        Counter(row[0] for row in drawn),
        Counter(token for row in drawn for token in row[:9] if token < 7),
    ]
    for count, values in zip(counts, (range(4), range(7, 10), range(7)), strict=True):
        assert set(count) == set(values)
        expected = sum(count.values()) / len(values)
        assert sum((n - expected) ** 2 / expected for n in count.values()) < 22  # 6 degrees: over 18.5 in 0.5 %


def test_only_expressions_of_one_operation_are_in_two_splits():
    task = made("mano", length=3, modulus=5, train_examples=4096, valid_examples=512, test_examples=512)
    train, valid, test = ({tuple(inputs) for inputs, _ in sequences(task, split)} for split in SPLITS)
    shared = (train & valid) | (train & test) | (valid & test)
    assert shared
    assert {inputs[1] for inputs in shared} == {5 + 4 + 1}
    assert len({inputs for inputs in train if inputs[1] == 10}) == 3 * 5 * 5  # training has every fact


def test_a_ladder_has_exactly_each_rungs_number_of_operations():
    task = made("mano", length=6, ladder="1,2,6", valid_examples=48, test_examples=48)
    for split in SPLITS:
        for i, (inputs, targets) in enumerate(sequences(task, split)):
            assert check_mano(inputs, targets, task.options) == (1, 2, 6)[i % 3]


@pytest.mark.parametrize("options", [{}, {"length": 1}, {"length": 3, "ladder": "1,2,3"}])
def test_always_answering_zero_is_right_as_often_as_documented(options):
    task = made("mano", valid_examples=96, test_examples=12_000, **options)
    values = [target for _, targets in sequences(task, "test") for target in targets if target != IGNORED]
    assert Counter(values).most_common(1)[0][0] == 0
    assert 0.055 < values.count(0) / len(values) < 0.085


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length"),
        ({"length": 3, "shortest": 4}, "shortest 4 must be at most length, which is 3"),
        ({"length": 3, "shortest": 2, "ladder": "1,3"}, "shortest 2 has no effect with a ladder"),
        ({"length": 3, "ladder": "0,3"}, "numbers of operations of at least 1"),
        ({"modulus": 1}, "modulus"),
        ({"vocab": 23}, "vocab"),
    ],
)
def test_impossible_options_of_mano_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        ManoOptions(**options)


def test_the_defaults_of_mano_are_the_documented_ones():
    o = Mano().options
    assert (o.length, o.shortest, o.modulus, o.ladder) == (10, 1, 23, "")
    assert (o.train_examples, o.valid_examples, o.test_examples) == (100_000, 3000, 3000)
