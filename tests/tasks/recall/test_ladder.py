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
from tests.tasks.recall.recall_sequences import MAD, made, sequences

SIZES = {"train_examples": 48, "valid_examples": 36, "test_examples": 36}
MQAR = {"vocab": 66, "pairs": 8, "ladder": "2,4,8", **SIZES}
IN_CONTEXT = {"vocab": 32, "length": 32, "ladder": "8,15,32", **SIZES}
LADDERS = [pytest.param("mqar", MQAR, id="mqar"), pytest.param("mad-in-context", IN_CONTEXT, id="mad-in-context")]


def alone(name, options, rung):
    """The task with one rung, with its share of the examples."""
    differs = "pairs" if name == "mqar" else "vocab"
    sizes = {split: n // 3 for split, n in SIZES.items()}
    return made(name, **{**options, **sizes, "ladder": "", differs: rung})


def rungs(options):
    return [int(rung) for rung in options["ladder"].split(",")]


def spread(token, rung, whole):
    """By hand: keys are the first of all keys, values the first of all values."""
    if token == IGNORED or token < rung // 2:
        return token
    return whole // 2 + (token - rung // 2)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_each_rung_has_the_sequences_of_the_task_with_that_rung_alone(name, options, split):
    mixed = sequences(made(name, **options), split)
    for place, rung in enumerate(rungs(options)):
        plain = sequences(alone(name, options, rung), split)
        if name == "mad-in-context":
            plain = [tuple([spread(t, rung, 32) for t in part] for part in pair) for pair in plain]
        assert mixed[place::3] == plain
        assert len(plain) == SIZES[f"{split}_examples"] // 3


@pytest.mark.parametrize(("name", "options"), LADDERS)
def test_batches_know_the_rung_of_every_sequence_also_in_the_shards_of_several_processes(name, options):
    task = made(name, **options)
    whole = [batch.rung_B.tolist() for batch in task.eval_batches("test", 7)]
    assert list(itertools.chain(*whole)) == [0, 1, 2] * 12
    parts = [batch for rank in range(5) for batch in task.eval_batches("test", 4, shard=Shard(rank, 5))]
    assert torch.cat([batch.rung_B for batch in parts]).tolist() == [0, 1, 2] * 12
    if name == "mqar":
        for batch in parts:
            scored = (batch.targets != IGNORED).sum(1)
            assert scored.tolist() == [rungs(options)[place] for place in batch.rung_B.tolist()]


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
    assert found[0]["accuracy"] != pytest.approx(float(pooled), abs=1e-6)
    assert 0 < min(map(float, exact.values()), default=0) or name == "mad-in-context"


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
    assert tasks.get("mqar").Options(**{**MQAR, "ladder": " 2, 04,8 "}).ladder == "2,4,8"


@pytest.mark.parametrize(
    ("name", "wrong", "fault"),
    [
        ("mqar", {"ladder": "8"}, "2 to 16 rising numbers from 1"),
        ("mqar", {"ladder": "4,2,8"}, "rising"),
        ("mqar", {"ladder": "4,4,8"}, "rising"),
        ("mqar", {"ladder": "0,4,8"}, "from 1 on, values of pairs"),
        ("mqar", {"ladder": ",".join(map(str, range(1, 18))), "pairs": 17, "length": 128}, "2 to 16"),
        ("mqar", {"ladder": "2,4"}, "must end at pairs, which is 8"),
        ("mqar", {"ladder": "2,x,8"}, "whole numbers with commas"),
        ("mqar", {"ladder": "2,,8"}, "whole numbers with commas"),
        ("mqar", {"test_examples": 35}, "test_examples 35 must be a multiple of 3"),
        ("mqar", {"train_examples": 47}, "train_examples 47 must be a multiple of 3"),
        ("mad-in-context", {"ladder": "2,15,32"}, "from 4 on, values of vocab"),
        ("mad-in-context", {"ladder": "8,15,16"}, "must end at vocab, which is 32"),
    ],
)
def test_impossible_ladders_are_refused(name, wrong, fault):
    with pytest.raises(ValidationError, match=fault):
        tasks.get(name).Options(**{**(MQAR if name == "mqar" else IN_CONTEXT), **wrong})


@pytest.mark.parametrize("name", MAD)
def test_only_in_context_recall_of_mads_tasks_has_a_ladder(name):
    assert ("ladder" in tasks.get(name).Options.model_fields) == (name == "mad-in-context")
