"""`mqar`: its rule, checked token by token, and the published power law of its gaps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.recall.base import IGNORED
from tasks.recall.mqar import Mqar, MqarOptions
from tests.tasks.recall.recall_sequences import made, sequences


def check_mqar(inputs: list[int], targets: list[int], o: MqarOptions) -> None:
    """One sequence against the rule, by hand."""
    pairs = {inputs[2 * i]: inputs[2 * i + 1] for i in range(o.pairs)}
    assert len(pairs) == o.pairs
    assert len(set(pairs.values())) == o.pairs
    assert all(1 <= key < o.vocab // 2 <= value < o.vocab for key, value in pairs.items())
    scored = [t for t in range(o.length) if targets[t] != IGNORED]
    assert all(t >= 2 * o.pairs and t % 2 == 0 for t in scored)
    assert sorted(inputs[t] for t in scored) == sorted(pairs)
    assert all(targets[t] == pairs[inputs[t]] for t in scored)
    if o.noise == "zero":
        assert all(inputs[t] == 0 for t in range(2 * o.pairs, o.length) if t not in scored)


@pytest.mark.parametrize("noise", ["random", "zero"])
@pytest.mark.parametrize(("length", "vocab", "pairs"), [(64, 8192, 4), (64, 128, 16), (128, 40, 18), (4, 4, 1)])
def test_mqar_repeats_each_key_once_after_the_pairs_with_its_value_as_target(length, vocab, pairs, noise):
    task = made("mqar", length=length, vocab=vocab, pairs=pairs, noise=noise)
    for split in ("train", "valid", "test"):
        for inputs, targets in sequences(task, split):
            check_mqar(inputs, targets, task.options)


def test_planted_errors_in_mqar_are_found():
    task = made("mqar", noise="zero")
    inputs, targets = sequences(task)[0]
    scored = [t for t in range(64) if targets[t] != IGNORED]
    swapped = list(targets)
    swapped[scored[0]], swapped[scored[1]] = targets[scored[1]], targets[scored[0]]
    late = [IGNORED, *targets[:-1]]
    for wrong in (swapped, late):
        with pytest.raises(AssertionError):
            check_mqar(inputs, wrong, task.options)


def test_the_gaps_of_mqar_follow_the_published_power_law():
    """The place of each key's query against numpy's draw without replacement in a loop, with the paper's weights."""
    task = made("mqar", train_examples=4096, noise="zero")
    ours = np.zeros((4, 28))
    for inputs, targets in sequences(task):
        for t in range(8, 64, 2):
            if targets[t] != IGNORED:
                ours[inputs[:8:2].index(inputs[t]), (t - 8) // 2] += 1
    random, x = np.random.default_rng(2), np.arange(1, 29)
    weights = 0.01 * x ** (0.01 - 1)
    theirs = np.zeros((4, 28))
    for _ in range(4096):
        theirs[range(4), random.choice(28, size=4, replace=False, p=weights / weights.sum())] += 1
    assert ours.sum() == theirs.sum() == 4 * 4096
    chi2 = ((ours - theirs) ** 2 / np.maximum(ours + theirs, 1)).sum()
    assert chi2 < 150  # 108 degrees of freedom: over 150 in 0.5 %
    uniform = np.full((4, 28), 4096 / 28)
    assert ((ours - uniform) ** 2 / uniform).sum() > 3000  # another law would be found


def test_random_noise_uses_the_whole_vocabulary_and_zero_noise_token_0():
    filled = [
        x
        for inputs, targets in sequences(made("mqar", vocab=66))
        for x, y in zip(inputs[8:], targets[8:], strict=True)
        if y < 0
    ]
    assert set(filled) == set(range(66))
    assert max(Counter(filled).values()) < 2 * len(filled) / 66
    rest = [
        x
        for inputs, targets in sequences(made("mqar", noise="zero"))
        for x, y in zip(inputs[8:], targets[8:], strict=True)
        if y < 0
    ]
    assert set(rest) == {0}


@pytest.mark.parametrize(
    "wrong", [{"length": 63}, {"pairs": 17}, {"vocab": 65}, {"vocab": 8, "pairs": 4}, {"power_a": 0.0}, {"noise": 1}]
)
def test_impossible_options_of_mqar_are_refused(wrong):
    with pytest.raises(ValidationError):
        MqarOptions(**wrong)


def test_the_defaults_of_mqar_are_the_published_ones():
    o = Mqar().options
    assert (o.length, o.pairs, o.vocab, o.power_a, o.train_examples, o.test_examples) == (
        64,
        4,
        8192,
        0.01,
        100_000,
        3000,
    )
