"""The recall tasks: what their rules promise, checked token by token; draws that depend on nothing but options, data seed and split."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tasks
from tasks.base import Batch
from tasks.draws import distinct, weighted_order
from tasks.mqar import Mqar, MqarOptions
from tasks.recall import CHUNK, IGNORED

FEW = {"train_examples": 96, "valid_examples": 64, "test_examples": 64}
NAMES = ("mqar",)


def made(name: str, **options):
    cls = tasks.get(name)
    return cls(cls.Options(**{**FEW, **options}))


def sequences(task, split="train"):
    """Every sequence of a split in order, as lists of tokens and targets."""
    batches = list(task.eval_batches(split, 50))
    return [(x.tolist(), y.tolist()) for batch in batches for x, y in zip(batch.inputs, batch.targets, strict=True)]


# --- Draws --------------------------------------------------------------------------------------------------------------------------


def test_distinct_draws_give_every_ordered_choice_equally_often():
    drawn = distinct(np.random.default_rng(0), 60_000, 4, 3)
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(itertools.permutations(range(4), 3))
    expected = 60_000 / 24
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 45  # chi² with 23 degrees of freedom: over 44.2 in 0.5 %


def test_weighted_order_equals_drawing_one_after_the_other():
    """Against numpy's own draws without replacement, one row at a time, which follow the remaining weights."""
    weights = np.array([5.0, 2.0, 1.0, 0.5])
    ours = weighted_order(np.random.default_rng(1), 40_000, weights, 2)
    probability = {
        (i, j): weights[i] / weights.sum() * weights[j] / (weights.sum() - weights[i]) for i, j in itertools.permutations(range(4), 2)
    }
    counts = Counter(map(tuple, ours.tolist()))
    assert sum((counts[pair] - 40_000 * p) ** 2 / (40_000 * p) for pair, p in probability.items()) < 27  # 11 degrees: over 26.8 in 0.5 %


# --- mqar ---------------------------------------------------------------------------------------------------------------------------


def check_mqar(inputs: list[int], targets: list[int], o: MqarOptions) -> None:
    """One sequence against the rule, by hand."""
    pairs = {inputs[2 * i]: inputs[2 * i + 1] for i in range(o.pairs)}
    assert len(pairs) == o.pairs
    assert len(set(pairs.values())) == o.pairs
    assert all(1 <= key < o.vocab // 2 <= value < o.vocab for key, value in pairs.items())
    asked = [t for t in range(o.length) if targets[t] != IGNORED]
    assert all(t >= 2 * o.pairs and t % 2 == 0 for t in asked)
    assert sorted(inputs[t] for t in asked) == sorted(pairs)
    assert all(targets[t] == pairs[inputs[t]] for t in asked)
    if o.noise == "zero":
        assert all(inputs[t] == 0 for t in range(2 * o.pairs, o.length) if t not in asked)


@pytest.mark.parametrize("noise", ["random", "zero"])
@pytest.mark.parametrize(("length", "vocab", "pairs"), [(64, 8192, 4), (64, 128, 16), (128, 40, 18), (4, 4, 1)])
def test_mqar_asks_each_key_once_after_the_pairs_and_its_value_stands_there(length, vocab, pairs, noise):
    task = made("mqar", length=length, vocab=vocab, pairs=pairs, noise=noise)
    for split in ("train", "valid", "test"):
        for inputs, targets in sequences(task, split):
            check_mqar(inputs, targets, task.options)


def test_a_planted_error_in_mqar_is_seen():
    task = made("mqar", noise="zero")
    inputs, targets = sequences(task)[0]
    asked = [t for t in range(64) if targets[t] != IGNORED]
    swapped = list(targets)
    swapped[asked[0]], swapped[asked[1]] = targets[asked[1]], targets[asked[0]]
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
    assert ((ours - uniform) ** 2 / uniform).sum() > 3000  # what the test would see of another law


def test_random_noise_takes_tokens_of_the_whole_vocabulary_and_zero_noise_none():
    filled = [x for inputs, targets in sequences(made("mqar", vocab=66)) for x, y in zip(inputs[8:], targets[8:], strict=True) if y < 0]
    assert set(filled) == set(range(66))
    assert max(Counter(filled).values()) < 2 * len(filled) / 66
    rest = [x for inputs, targets in sequences(made("mqar", noise="zero")) for x, y in zip(inputs[8:], targets[8:], strict=True) if y < 0]
    assert set(rest) == {0}


@pytest.mark.parametrize("wrong", [{"length": 63}, {"pairs": 17}, {"vocab": 65}, {"vocab": 8, "pairs": 4}, {"power_a": 0.0}, {"noise": 1}])
def test_impossible_options_of_mqar_are_refused(wrong):
    with pytest.raises(ValidationError):
        MqarOptions(**wrong)


def test_the_defaults_of_mqar_are_the_published_ones():
    o = Mqar().options
    assert (o.length, o.pairs, o.vocab, o.power_a, o.train_examples, o.test_examples) == (64, 4, 8192, 0.01, 100_000, 3000)


# --- All of them --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_data_depend_on_options_data_seed_and_split_alone(name):
    first, second, other = made(name), made(name), made(name, data_seed=1)
    second.eval_batches("test", 8)  # the order in which splits are asked for has no part in it
    second.load()
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert sequences(first) == sequences(second)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_sequences_of_a_split_do_not_depend_on_how_many_it_has(name):
    short, long = made(name, train_examples=7), made(name, train_examples=CHUNK + 9)
    assert sequences(short) == sequences(long)[:7]
    assert long.n_examples("train") == len(sequences(long)) == CHUNK + 9


@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_stands_twice_in_or_between_splits(name):
    task = made(name)
    seen = [tuple(inputs) for split in ("train", "valid", "test") for inputs, _ in sequences(task, split)]
    assert len(set(seen)) == len(seen) == 96 + 64 + 64


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_shows_every_training_sequence_once(name):
    task = made(name)
    shown = [tuple(x) for batch in itertools.islice(task.train_batches(5, 12), 8) for x in batch.inputs.tolist()]
    assert sorted(shown) == sorted(tuple(inputs) for inputs, _ in sequences(task))


def test_accuracy_and_loss_equal_a_loop_over_single_tokens():
    task = made("mqar", vocab=66, length=64, pairs=8)
    torch.manual_seed(0)
    table = torch.randn(66, 66).double()
    hits, nats, by_class = [], [], {}
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


def test_the_loss_looks_at_scored_tokens_only():
    task = made("mqar")
    batch = next(task.train_batches(0, 4))
    outputs = torch.randn(4, 64, 8192)
    elsewhere = outputs + 100 * torch.randn(4, 64, 8192) * (batch.targets == IGNORED)[..., None]
    assert torch.equal(task.loss(outputs, batch), task.loss(elsewhere, batch))
    means = [-outputs.log_softmax(-1)[b, t, batch.targets[b, t]] for b in range(4) for t in range(64) if batch.targets[b, t] != IGNORED]
    assert task.loss(outputs, batch).item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-5)
    assert task.loss(elsewhere, Batch(batch.inputs, torch.full_like(batch.targets, 3))) != task.loss(outputs, batch)
