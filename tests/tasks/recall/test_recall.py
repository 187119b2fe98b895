"""Common parts of the recall tasks: draws that depend only on options, data seed and split; the loss and both
accuracies.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from tasks.base import Batch
from tasks.recall.base import CHUNK, IGNORED
from tasks.recall.sampling import distinct, weighted_order
from tests.tasks.recall.recall_sequences import MAD, made, sequences

NAMES = ("mqar", *MAD, "parity", "s3", "s5", "mano")

# --- Draws
# --------------------------------------------------------------------------------------------------


def test_distinct_draws_give_every_ordered_choice_equally_often():
    drawn = distinct(np.random.default_rng(0), 60_000, 4, 3)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(itertools.permutations(range(4), 3))
    expected = 60_000 / 24
    assert (
        sum((n - expected) ** 2 / expected for n in counts.values()) < 45
    )  # chi² with 23 degrees of freedom: over 44.2 in 0.5 %


def test_weighted_order_equals_drawing_one_after_the_other():
    """Against numpy's own draws without replacement, one row at a time, which follow the remaining weights."""
    weights = np.array([5.0, 2.0, 1.0, 0.5])
    ours = weighted_order(np.random.default_rng(1), 40_000, weights, 2)
    probability = {
        (i, j): weights[i] / weights.sum() * weights[j] / (weights.sum() - weights[i])
        for i, j in itertools.permutations(range(4), 2)
    }
    counts = Counter(map(tuple, ours.tolist()))
    assert (
        sum((counts[pair] - 40_000 * p) ** 2 / (40_000 * p) for pair, p in probability.items()) < 27
    )  # 11 degrees: over 26.8 in 0.5 %


# --- All of them
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_data_depend_only_on_options_data_seed_and_split(name):
    first, second, other = made(name), made(name), made(name, data_seed=1)
    second.eval_batches("test", 8)  # the order in which splits are drawn does not matter
    second.load()
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert sequences(first) == sequences(second)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_sequences_of_a_split_do_not_depend_on_how_many_it_has(name):
    short, long = made(name, train_examples=7), made(name, train_examples=CHUNK + 9)
    assert sequences(short) == sequences(long)[:7]
    assert long.n_examples("train") == len(sequences(long)) == CHUNK + 9


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mano"])  # its single operations are facts
def test_no_sequence_is_repeated_within_or_between_splits(name):
    task = made(name, train_examples=2 * CHUNK)
    seen = [tuple(inputs) for split in ("train", "valid", "test") for inputs, _ in sequences(task, split)]
    assert len(set(seen)) == len(seen) == 2 * CHUNK + 64 + 64


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_shows_every_training_sequence_once(name):
    task = made(name)
    shown = [tuple(x) for batch in itertools.islice(task.train_batches(5, 12), 8) for x in batch.inputs.tolist()]
    assert sorted(shown) == sorted(tuple(inputs) for inputs, _ in sequences(task))


def test_accuracy_and_loss_equal_a_loop_over_single_tokens():
    task = made("mqar", vocab=66, length=64, pairs=8)
    torch.manual_seed(0)
    table = torch.randn(66, 66).double()
    hits: list[bool] = []
    nats: list[float] = []
    by_class: dict[int, list[bool]] = {}
    for inputs, targets in sequences(task, "test"):
        for x, y in zip(inputs, targets, strict=True):
            if y != IGNORED:
                hits.append(int(table[x].argmax()) == y)
                nats.append(-float(table[x].log_softmax(-1)[y]))
                by_class.setdefault(y, []).append(hits[-1])
    totals: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches("test", 9):
        for name, (a, b) in task.measure(table.float()[batch.inputs], batch).items():
            old = totals.get(name, (0.0, 0.0))
            totals[name] = (old[0] + a, old[1] + b)
    found = task.summarise(totals)
    assert 0 < sum(hits) < len(hits)
    assert found["accuracy"] == sum(hits) / len(hits)
    assert found["class_accuracy"] == pytest.approx(np.mean([np.mean(h) for h in by_class.values()]), rel=1e-12)
    assert found["class_accuracy"] != found["accuracy"]
    assert found["loss"] == pytest.approx(np.mean(nats), rel=1e-6)


def test_the_loss_depends_on_scored_tokens_only():
    task = made("mqar")
    batch = next(task.train_batches(0, 4))
    outputs = torch.randn(4, 64, 8192)
    elsewhere = outputs + 100 * torch.randn(4, 64, 8192) * (batch.targets == IGNORED)[..., None]
    assert torch.equal(task.loss(outputs, batch), task.loss(elsewhere, batch))
    means = [
        -outputs.log_softmax(-1)[b, t, batch.targets[b, t]]
        for b in range(4)
        for t in range(64)
        if batch.targets[b, t] != IGNORED
    ]
    assert task.loss(outputs, batch).item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-5)
    assert task.loss(elsewhere, Batch(batch.inputs, torch.full_like(batch.targets, 3))) != task.loss(outputs, batch)
