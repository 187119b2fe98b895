"""Ladders of difficulties: every rung has the sequences of the task with that rung alone, in equal shares, and accuracy
is the mean over the rungs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import pytest
import torch
from pydantic import ValidationError

import tasks
from tasks.base import Shard
from tasks.contract.run import run_checks
from tasks.recall.base import IGNORED
from tasks.recall.ladder import RungBatch
from tasks.recall.mqar import MqarOptions
from tests.tasks.recall.recall_sequences import MAD, made, sequences

SIZES = {"train_examples": 48, "valid_examples": 36, "test_examples": 36}
MQAR = {"vocab": 64, "pairs": 3, "ladder": "8,16,64", **SIZES}
IN_CONTEXT = {"vocab": 32, "length": 32, "ladder": "8,16,32", **SIZES}
LADDERS = [pytest.param("mqar", MQAR, id="mqar"), pytest.param("mad-in-context", IN_CONTEXT, id="mad-in-context")]


def alone(name, options, rung):
    """The task with one rung, with its part of the examples."""
    sizes = {split: n // 3 for split, n in SIZES.items()}
    return made(name, **{**options, **sizes, "ladder": "", "vocab": rung})


def rungs(options):
    return [int(rung) for rung in options["ladder"].split(",")]


def spread(token, own, whole):
    """By hand: keys are the first of all keys, values the first of all values."""
    if token == IGNORED or token < own // 2:
        return token
    return whole // 2 + (token - own // 2)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_each_rung_has_the_sequences_of_the_task_with_that_rung_alone(name, options, split):
    mixed = sequences(made(name, **options), split)
    for place, rung in enumerate(rungs(options)):
        plain = sequences(alone(name, options, rung), split)
        plain = [tuple([spread(t, rung, options["vocab"]) for t in part] for part in pair) for pair in plain]
        assert mixed[place::3] == plain
        assert len(plain) == SIZES[f"{split}_examples"] // 3


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_batches_know_the_rung_of_every_sequence_also_in_shards(name, options):
    task = made(name, **options)
    whole = [batch.rung_B.tolist() for batch in task.eval_batches("test", 7)]
    assert list(itertools.chain(*whole)) == [0, 1, 2] * 12
    parts = [batch for rank in range(5) for batch in task.eval_batches("test", 4, shard=Shard(rank, 5))]
    assert torch.cat([batch.rung_B for batch in parts]).tolist() == [0, 1, 2] * 12


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_an_epoch_of_training_has_every_rung_equally_often(name, options):
    task = made(name, **options)
    place = {tuple(inputs): i % 3 for i, (inputs, _) in enumerate(sequences(task))}
    shown = [tuple(x) for batch in itertools.islice(task.train_batches(5, 12), 4) for x in batch.inputs.tolist()]
    assert Counter(place[inputs] for inputs in shown) == {0: 16, 1: 16, 2: 16}
    assert type(next(task.train_batches(5, 12))) is not RungBatch


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_accuracy_is_the_mean_over_rungs_of_correct_over_scored_tokens(name, options):
    """Against exact fractions over single tokens; the batches are uneven, so a mean of their means would differ."""
    task = made(name, **options)
    torch.manual_seed(0)
    table = torch.randn(task.spec.vocab, task.spec.vocab)
    table[:, task.spec.vocab // 2] += 2  # the first value of every rung: guessed often, right more often in small ones
    hits: dict[int, list[bool]] = {rung: [] for rung in rungs(options)}
    for i, (inputs, targets) in enumerate(sequences(task, "test")):
        for x, y in zip(inputs, targets, strict=True):
            if y != IGNORED:
                hits[rungs(options)[i % 3]].append(int(table[x].argmax()) == y)
    found = [measured(task, table, batch_size) for batch_size in (1, 7, 36)]
    exact = {rung: Fraction(sum(h), len(h)) for rung, h in hits.items()}
    for values in found:
        for rung, accuracy in exact.items():
            assert values[f"accuracy_{rung}"] == pytest.approx(float(accuracy), abs=1e-15)
        assert values["accuracy"] == pytest.approx(float(sum(exact.values()) / 3), abs=1e-15)
        assert values["accuracy"] == found[0]["accuracy"]
    pooled = Fraction(sum(map(sum, hits.values())), sum(map(len, hits.values())))
    means = {float(sum(exact.values()) / 3), float(pooled)}
    assert found[0]["accuracy"] > 0
    assert len(means) == 2 or name == "mqar"  # whose rungs have equally many scored tokens


def measured(task, table, batch_size):
    totals: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches("test", batch_size):
        for name, (a, b) in task.measure(table[batch.inputs], batch).items():
            old = totals.get(name, (0.0, 0.0))
            totals[name] = (old[0] + a, old[1] + b)
    return task.summarise(totals)


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_class_accuracy_and_loss_count_the_tokens_of_all_rungs_alike(name, options):
    task = made(name, **options)
    table = torch.randn(task.spec.vocab, task.spec.vocab, generator=torch.Generator().manual_seed(1))
    plain = type(task)(task.options.model_copy(update={"ladder": ""}))
    plain._data = {"test": task._split("test")}
    with_ladder, without = measured(task, table, 7), measured(plain, table, 7)
    assert {key: with_ladder[key] for key in ("class_accuracy", "loss")} == {
        key: without[key] for key in ("class_accuracy", "loss")
    }
    assert set(with_ladder) - set(without) == {f"accuracy_{rung}" for rung in rungs(options)}


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_the_primary_metric_is_accuracy_and_every_rung_has_its_own(name, options):
    task = made(name, **options)
    each = [f"accuracy_{rung}" for rung in rungs(options)]
    assert [metric.name for metric in task.metrics] == ["accuracy", *each, "class_accuracy", "loss"]
    assert all(metric.higher_is_better for metric in task.metrics[:-1])
    assert [metric.name for metric in made(name).metrics] == ["accuracy", "class_accuracy", "loss"]


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_the_task_contract_holds_with_a_ladder(name, options):
    cls = tasks.get(name)
    results = run_checks(cls, None, cls.Options(**options))
    assert [(r.check, r.reason, r.shown_by) for r in results if r.status == "failed"] == []


def test_spaces_and_zeros_in_a_ladder_are_no_other_ladder():
    assert MqarOptions.model_validate({**MQAR, "ladder": " 8, 016,64 "}).ladder == "8,16,64"


@pytest.mark.parametrize(
    ("name", "wrong", "fault"),
    [
        ("mqar", {"ladder": "64"}, "2 to 16 rising numbers, vocabularies of at least 8 tokens"),
        ("mqar", {"ladder": "16,8,64"}, "rising"),
        ("mqar", {"ladder": "8,8,64"}, "rising"),
        ("mqar", {"ladder": "6,8,64"}, "at least 8"),
        ("mqar", {"ladder": ",".join(map(str, range(8, 42, 2))), "vocab": 40}, "2 to 16"),
        ("mqar", {"ladder": "8,9,64"}, "must be even"),
        ("mqar", {"ladder": "8,16,32"}, "must end at vocab, which is 64"),
        ("mqar", {"ladder": "8,x,64"}, "whole numbers with commas"),
        ("mqar", {"ladder": "8,,64"}, "whole numbers with commas"),
        ("mqar", {"test_examples": 35}, "test_examples 35 must be a multiple of 3"),
        ("mqar", {"train_examples": 47}, "train_examples 47 must be a multiple of 3"),
        ("mad-in-context", {"ladder": "2,16,32"}, "at least 4"),
        ("mad-in-context", {"ladder": "8,12,16"}, "must end at vocab, which is 32"),
    ],
)
def test_impossible_ladders_are_refused(name, wrong, fault):
    with pytest.raises(ValidationError, match=fault):
        tasks.get(name).Options(**{**(MQAR if name == "mqar" else IN_CONTEXT), **wrong})


@pytest.mark.parametrize("name", MAD)
def test_only_in_context_recall_of_mads_tasks_has_a_ladder(name):
    assert ("ladder" in tasks.get(name).Options.model_fields) == (name == "mad-in-context")
