"""MAD's six tasks: their rules, checked token by token."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tasks
from tasks.recall.base import IGNORED
from tests.tasks.recall.recall_sequences import MAD, made, sequences

# --- In-context, noisy and fuzzy recall
# ----------------------------------------------------------------------------------------------


def check_recall(inputs: list[int], targets: list[int], vocab: int, fill: int = -1) -> None:
    """One sequence of keys (below vocab/2) and values (up to vocab) against the rule; other tokens are noise, and
    `fill` ends the sequence.
    """
    known: dict[tuple[int, ...], list[int]] = {}
    expected = [IGNORED] * len(inputs)
    t = last_scored = last_end = 0
    while t < len(inputs) and inputs[t] != fill:
        if inputs[t] >= vocab:
            t += 1
            continue
        key, value = [], []
        while inputs[t] < vocab // 2:
            key.append(inputs[t])
            t += 1
        start = t
        while t < len(inputs) and vocab // 2 <= inputs[t] < vocab and inputs[t] != fill:
            value.append(inputs[t])
            t += 1
        if tuple(key) in known:
            assert value == known[tuple(key)]
            expected[start - 1 : t - 1] = value
            last_scored = t
        known[tuple(key)] = value
        assert len(set(key)) == len(key) >= 1
        assert len(set(value)) == len(value) >= 1
        last_end = t
    assert targets == expected
    assert last_scored == last_end > 0  # the last pair repeats an earlier key
    assert all(token == fill for token in inputs[t:])


RECALLS = [
    ("mad-in-context", {}),
    ("mad-in-context", {"length": 4, "vocab": 64}),
    ("mad-in-context", {"length": 30, "vocab": 7}),
    ("mad-noisy", {}),
    ("mad-noisy", {"noise": 1.0, "length": 16}),
    ("mad-noisy", {"noise": 0.0, "noise_vocab": 3}),
    ("mad-fuzzy", {"form": "mixed"}),
    ("mad-fuzzy", {"form": "mixed", "key_motif": 1, "value_motif": 4, "length": 10, "vocab": 9}),
    ("mad-fuzzy", {"form": "mixed", "key_motif": 2, "value_motif": 1, "vocab": 4, "length": 64}),
]


@pytest.mark.parametrize(("name", "options"), RECALLS)
def test_values_are_targets_exactly_where_their_key_occurred_earlier(name, options):
    task = made(name, **options)
    fill = task.options.vocab if name == "mad-fuzzy" else -1
    for split in ("train", "valid", "test"):
        for inputs, targets in sequences(task, split):
            check_recall(inputs, targets, task.options.vocab, fill)


def test_planted_errors_in_recall_are_found():
    inputs, targets = sequences(made("mad-in-context"))[0]
    scored = [t for t in range(128) if targets[t] != IGNORED]
    wrong_value = [*targets[: scored[3]], 8 + (targets[scored[3]] - 7) % 8, *targets[scored[3] + 1 :]]
    one_missing = [*targets[: scored[0]], IGNORED, *targets[scored[0] + 1 :]]
    for wrong in (wrong_value, one_missing):
        with pytest.raises(AssertionError):
            check_recall(inputs, wrong, 16)
    with pytest.raises(AssertionError):  # a key whose value changes
        check_recall([0, 8, 0, 9], [IGNORED, IGNORED, 9, IGNORED], 16)


def test_keys_and_values_of_in_context_recall_are_drawn_evenly():
    drawn = [inputs for inputs, _ in sequences(made("mad-in-context", train_examples=2048))]
    keys = Counter(token for inputs in drawn for token in inputs[:-2:2])
    assert set(keys) == set(range(8))
    assert (
        sum((n - 2048 * 63 / 8) ** 2 / (2048 * 63 / 8) for n in keys.values()) < 20.3
    )  # 7 degrees of freedom: over that in 0.5 %
    values = Counter(value for inputs in drawn for value in dict(zip(inputs[::2], inputs[1::2], strict=True)).values())
    assert set(values) == set(range(8, 16))
    assert max(values.values()) < 1.15 * min(values.values())


def test_the_last_pair_repeats_each_different_key_equally_often():
    """A key that occurs twice is not repeated twice as often."""
    twice, drawn = 0, 0
    for inputs, _ in sequences(made("mad-in-context", train_examples=4096, length=8)):
        often = Counter(inputs[:6:2])
        if sorted(often.values()) == [1, 2]:
            drawn += 1
            twice += often[inputs[6]] == 2
    assert twice / drawn == pytest.approx(0.5, abs=0.04)  # about 1,300 draws


def test_the_fraction_of_noise_is_the_option_and_its_tokens_are_separate():
    task = made("mad-noisy", train_examples=1024, noise=0.3, noise_vocab=5)
    pairs = [inputs[t : t + 2] for inputs, _ in sequences(task) for t in range(0, 126, 2)]
    noise = [pair for pair in pairs if pair[0] >= 16]
    assert len(noise) / len(pairs) == pytest.approx(0.3 * 62 / 63, abs=0.01)  # one of the 63 places is never noise
    assert {token for pair in noise for token in pair} == set(range(16, 21))
    assert task.spec.vocab == 21


def test_fuzzy_motifs_have_all_lengths_equally_often_and_every_motif_occurs():
    task = made("mad-fuzzy", form="mixed", train_examples=2048, vocab=6, key_motif=2, value_motif=3)
    first = []
    for inputs, _ in sequences(task):
        start = next(t for t in range(128) if inputs[t] >= 3)
        end = next(t for t in range(start, 128) if inputs[t] < 3)
        first.append((tuple(inputs[:start]), tuple(inputs[start:end])))
    keys, values = Counter(k for k, _ in first), Counter(v for _, v in first)
    assert set(keys) == {p for n in (1, 2) for p in itertools.permutations(range(3), n)}
    assert set(values) == {p for n in (1, 2, 3) for p in itertools.permutations(range(3, 6), n)}
    for found, longest in ((keys, 2), (values, 3)):
        for n in range(1, longest + 1):
            assert sum(c for motif, c in found.items() if len(motif) == n) == pytest.approx(2048 / longest, rel=0.1)


# --- Memorisation, copying, compression
# ----------------------------------------------------------------------------------------------


def test_facts_are_the_same_in_all_splits_and_depend_on_the_data_seed():
    task = made("mad-memorize", train_examples=256)
    facts: dict[int, int] = {}
    for split in ("train", "valid", "test"):
        for inputs, targets in sequences(task, split):
            assert set(inputs[1::2]) == {255}
            assert set(targets[::2]) == {IGNORED}
            for key, value in zip(inputs[::2], targets[1::2], strict=True):
                assert facts.setdefault(key, value) == value
                assert key < 127 <= value < 255
        assert sorted(facts) == list(range(127))  # every key is in the training split
    assert len(set(facts.values())) == 127
    assert task.facts().tolist() == [facts[key] for key in range(127)]
    assert made("mad-memorize", data_seed=1).facts().tolist() != task.facts().tolist()


@pytest.mark.parametrize("options", [{}, {"length": 12, "tokens": 3, "vocab": 5}, {"length": 9, "tokens": 4}])
def test_copying_scores_the_tokens_between_the_blanks_in_their_order(options):
    task = made("mad-copy", **options)
    blank, sign, n = task.options.vocab - 2, task.options.vocab - 1, task.options.tokens
    for inputs, targets in sequences(task):
        before, after = inputs[: -n - 1], inputs[-n:]
        assert inputs[-n - 1] == sign
        assert after == [blank] * n
        assert targets == [IGNORED] * (len(inputs) - n) + [token for token in before if token != blank]


def test_the_places_of_tokens_to_copy_are_spread_evenly():
    places = Counter(
        t
        for inputs, _ in sequences(made("mad-copy", places="uniform", train_examples=4096, length=20, tokens=4))
        for t in range(15)
        if inputs[t] < 14
    )
    assert (
        sum((places[t] - 4096 * 4 / 15) ** 2 / (4096 * 4 / 15) for t in range(15)) < 31
    )  # 14 degrees: over 31.3 in 0.5 %


def test_compression_scores_every_token_from_the_output_at_the_last_position_alone():
    task = made("mad-compress", length=5, vocab=4)
    assert task.spec.vocab == 4 * 3
    batch = next(task.eval_batches("test", 6))
    assert batch.inputs[:, -1].tolist() == [3] * 6
    assert torch.equal(batch.inputs[:, :-1], batch.targets[:, :-1])
    torch.manual_seed(0)
    outputs = torch.randn(6, 5, 12)
    right, nats = 0, 0.0
    for b, i in itertools.product(range(6), range(4)):
        logits = [float(outputs[b, 4, 3 * i + symbol]) for symbol in range(3)]
        target = int(batch.inputs[b, i])
        right += logits.index(max(logits)) == target
        nats += float(np.log(np.exp(logits).sum())) - logits[target]
    found = task.summarise(task.measure(outputs, batch))
    assert found["accuracy"] == right / 24
    assert found["loss"] == pytest.approx(nats / 24, rel=1e-6)
    assert task.loss(outputs, batch).item() == pytest.approx(nats / 24, rel=1e-6)
    outputs[:, :-1] = float("nan")  # outputs at other positions do not matter
    assert task.summarise(task.measure(outputs, batch)) == found


def test_perfect_outputs_have_accuracy_1_in_compression():
    task = made("mad-compress")
    batch = next(task.eval_batches("test", 32))
    outputs = torch.zeros(32, 32, task.spec.vocab)
    for b, i in itertools.product(range(32), range(31)):
        outputs[b, -1, 15 * i + int(batch.inputs[b, i])] = 5.0
    assert task.summarise(task.measure(outputs, batch))["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("mad-in-context", {"length": 7}),
        ("mad-in-context", {"length": 2}),
        ("mad-in-context", {"vocab": 3}),
        ("mad-noisy", {"noise": 1.1}),
        ("mad-noisy", {"noise_vocab": 0}),
        ("mad-noisy", {"length": 9}),
        ("mad-fuzzy", {"length": 12}),
        ("mad-fuzzy", {"vocab": 6}),
        ("mad-fuzzy", {"length": 11, "form": "mixed"}),
        ("mad-fuzzy", {"vocab": 5, "form": "mixed"}),
        ("mad-fuzzy", {"key_motif": 0}),
        ("mad-memorize", {"length": 31}),
        ("mad-copy", {"length": 32}),
        ("mad-copy", {"tokens": 0}),
        ("mad-compress", {"length": 1}),
    ],
)
def test_impossible_options_of_mad_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        tasks.get(name).Options(**wrong)


def test_the_defaults_of_mad_are_the_published_ones():
    defaults: dict[str, Any] = {name: tasks.get(name)().options for name in MAD}
    sizes = {name: (o.length, o.vocab, o.train_examples, o.test_examples) for name, o in defaults.items()}
    assert sizes == {
        "mad-in-context": (128, 16, 12800, 1280),
        "mad-noisy": (128, 16, 12800, 1280),
        "mad-fuzzy": (128, 16, 12800, 1280),
        "mad-memorize": (32, 256, 256, 1280),
        "mad-compress": (32, 16, 12800, 1280),
        "mad-copy": (256, 16, 12800, 1280),
    }
    assert (defaults["mad-noisy"].noise, defaults["mad-noisy"].noise_vocab) == (0.2, 16)
    assert (defaults["mad-fuzzy"].key_motif, defaults["mad-fuzzy"].value_motif, defaults["mad-copy"].tokens) == (
        3,
        3,
        16,
    )
