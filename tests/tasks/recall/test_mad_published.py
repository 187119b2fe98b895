"""MAD's fuzzy recall and selective copying have the statistics of the published generators."""

from __future__ import annotations

import numpy as np
import pytest

import tasks
from tasks.recall.base import IGNORED
from tests.tasks.recall.recall_sequences import made, sequences

Motif = tuple[int, ...]


def pairs_of(row: tuple[list[int], list[int]], last: int) -> list[tuple[Motif, Motif, Motif]]:
    """(key, value, target of each value token) of one row of fuzzy recall; 7 tokens of keys, 8 of values."""
    inputs, targets = row
    whole = [(token, target) for token, target in zip([*inputs, targets[-1]], [IGNORED, *targets], strict=True)]
    body = [(token, target) for token, target in whole if token != last]
    pairs: list[tuple[Motif, Motif, Motif]] = []
    key, value, scored = list[int](), list[int](), list[int]()
    for token, target in [*body, (0, IGNORED)]:
        if token < 7 and value:
            pairs.append((tuple(key), tuple(value), tuple(scored)))
            key, value, scored = [], [], []
        if token < 7:
            assert target == IGNORED
            key.append(token)
        else:
            value.append(token)
            scored.append(target)
    return pairs


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_fuzzy_recall_follows_the_published_rule(split):
    task = made("mad-fuzzy")
    assert task.spec.vocab == 16
    lengths, unseen = set[int](), 0
    for row in sequences(task, split):
        inputs, _ = row
        padding = inputs.index(next(token for token in inputs if token != 15))
        assert padding >= 2
        assert 15 not in inputs[padding:]
        pairs, known = pairs_of(row, 15), dict[Motif, Motif]()
        for place, (key, value, scored) in enumerate(pairs):
            is_last = place + 1 == len(pairs)
            assert value == known.setdefault(key, value)
            assert scored == (value if is_last or key in [k for k, _, _ in pairs[:place]] else (IGNORED,) * len(value))
            assert len(set(key)) == len(key)
            assert len(set(value)) == len(value) <= 3
            lengths.add(len(key))
            unseen += is_last and key not in [k for k, _, _ in pairs[:place]]
    assert lengths == ({1, 2, 3} if split == "train" else {3})
    assert unseen <= 5


def test_fuzzy_evaluation_scores_as_many_tokens_as_the_published_one():
    task = made("mad-fuzzy", test_examples=4096)
    counts = [sum(target != IGNORED for target in targets) for _, targets in sequences(task, "test")]
    assert np.mean(counts) == pytest.approx(4.4, abs=0.1)


def test_selective_copying_has_the_published_gaps():
    gaps = []
    for inputs, _ in sequences(made("mad-copy", train_examples=512)):
        before = np.array(inputs[:239])
        places = np.flatnonzero(before != 14)
        assert places[-1] == 238  # the copy token follows the last token at once
        gaps.append(np.diff(places, prepend=-1) - 1)
    assert np.std(gaps, axis=1).mean() == pytest.approx(3.6, abs=0.1)
    assert np.mean(gaps) == 223 / 16
    assert np.min(gaps) >= 1


@pytest.mark.parametrize("name", ["mad-fuzzy", "mad-copy"])
def test_tasks_whose_sequences_changed_have_version_2(name):
    assert (tasks.get(name).version, tasks.get(name).protocol) == (2, f"{name}/2")
