"""The checks of the task contract find what they promise to find: one planted error each."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from pydantic import ConfigDict
from rich.console import Console

import tasks
from tasks.base import WHOLE, Batch, DataError, Shard, TaskOptions
from tasks.contract.run import CHECKS, as_json, render, run_checks
from tests.tasks.local_data import LOCAL
from tests.tasks.third_party import NAMED

Sorting: Any = tasks.get(NAMED)  # a class of a user file: its type is not known here
SMALL = Sorting.Options(digits=6, train_examples=40, valid_examples=37, test_examples=50)


class GlobalOrder(Sorting):
    """Draws from the global generator."""

    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        for batch in super().train_batches(seed, batch_size, start_step, workers, shard):
            order = torch.randperm(batch.size)
            yield Batch(batch.inputs[order], batch.targets[order])


class NoSeed(Sorting):
    def train_batches(self, seed, *rest, **more):
        return super().train_batches(0, *rest, **more)


class OneBatch(Sorting):
    """The same batch at every step."""

    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        while True:
            yield next(super().train_batches(seed, batch_size, 0, workers, shard))


class ForgetsTheStep(Sorting):
    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        return super().train_batches(seed, batch_size, 0, workers, shard)


class RepeatsAnEpoch(Sorting):
    """Every epoch in the order of the first."""

    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        from itertools import count

        from tasks.randomness import ORDER, generator

        self.load()
        order = generator(ORDER, seed, 0).permutation(self.n_examples("train"))
        for step in count(start_step):
            stream = order[[i % len(order) for i in range(step * batch_size, (step + 1) * batch_size)]]
            yield self._batch(self._digits["train"][stream[shard.rows(batch_size)]])


class WithReplacement(Sorting):
    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        from itertools import count

        from tasks.randomness import ORDER, generator

        self.load()
        for step in count(start_step):
            index = generator(ORDER, seed, step).integers(self.n_examples("train"), size=batch_size)
            yield self._batch(self._digits["train"][index[shard.rows(batch_size)]])


class SameRowsOnEveryRank(Sorting):
    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        shard.rows(batch_size)
        return super().train_batches(seed, batch_size, start_step, workers, Shard(0, shard.world))


class DrawsPerRank(Sorting):
    """Each rank has an order of its own."""

    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        shard.rows(batch_size)
        return super().train_batches(seed + shard.rank, batch_size // shard.world, start_step)


class AcceptsAnyBatch(Sorting):
    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        for batch in super().train_batches(seed, batch_size, start_step, workers):
            rows = shard.part(batch_size)
            yield Batch(batch.inputs[rows], batch.targets[rows])


class DropsTheLast(Sorting):
    def eval_batches(self, split, batch_size, workers=0, shard=WHOLE):
        return (batch for batch in super().eval_batches(split, batch_size, workers, shard) if batch.size == batch_size)


class PadsTheLast(Sorting):
    def eval_batches(self, split, batch_size, workers=0, shard=WHOLE):
        for batch in super().eval_batches(split, batch_size, workers, shard):
            index = torch.arange(batch_size).clamp(max=batch.size - 1)
            yield Batch(batch.inputs[index], batch.targets[index])


class OrderOfTheBatchSize(Sorting):
    def eval_batches(self, split, batch_size, workers=0, shard=WHOLE):
        for batch in super().eval_batches(split, batch_size, workers, shard):
            yield Batch(batch.inputs.flip(0), batch.targets.flip(0))


class MeanOfMeans(Sorting):
    def measure(self, outputs, batch):
        return {name: (total / count, 1.0) for name, (total, count) in super().measure(outputs, batch).items()}


class EveryRankEvaluatesAll(Sorting):
    def eval_batches(self, split, batch_size, workers=0, shard=WHOLE):
        return super().eval_batches(split, batch_size, workers)


class NoGradient(Sorting):
    def loss(self, outputs, batch):
        return super().loss(outputs.detach(), batch)


class InfiniteLoss(Sorting):
    def loss(self, outputs, batch):
        return super().loss(outputs, batch) / 0


class LossPerExample(Sorting):
    def loss(self, outputs, batch):
        return super().loss(outputs, batch).repeat(batch.size)


class AnotherLength(Sorting):
    @property
    def spec(self):
        return type(super().spec)(vocab=self.options.values, length=self.options.digits)


class SmallerVocabulary(Sorting):
    @property
    def spec(self):
        return type(super().spec)(vocab=self.options.values - 1, length=2 * self.options.digits)


class SpecOfTheData(Sorting):
    @property
    def spec(self):
        return type(super().spec)(vocab=self.options.values + hasattr(self, "_digits"), length=2 * self.options.digits)


class SpecOfTheFolder(Sorting):
    @property
    def spec(self):
        return type(super().spec)(vocab=self.options.values + bool(self.data_dir), length=2 * self.options.digits)


class AnotherVersion(Sorting):
    version = 2


class RandomFingerprint(Sorting):
    @property
    def fingerprint(self):
        return f"{id(self):064x}"


class NamelessLoss(Sorting):
    def summarise(self, sums):
        return {"accuracy": super().summarise(sums)["accuracy"]}


class NoLossMetric(Sorting):
    @property
    def metrics(self):
        return super().metrics[:1]


class LaxOptions(TaskOptions):
    model_config = ConfigDict(extra="ignore")
    digits: int = 6
    values: int = 10
    train_examples: int = 40
    valid_examples: int = 37
    test_examples: int = 50


class Lax(Sorting):
    Options = LaxOptions


class SlowerWithWorkers(Sorting):
    """Other batches with loader processes."""

    def train_batches(self, seed, batch_size, start_step=0, workers=0, shard=WHOLE):
        return super().train_batches(seed + workers, batch_size, start_step, 0, shard)


#: Each planted error, and the checks that must fail, no others.
ERRORS = {
    GlobalOrder: {"batches", "resume", "generators", "shards"},
    NoSeed: {"batches"},
    OneBatch: {"batches", "epochs"},
    ForgetsTheStep: {"resume"},
    RepeatsAnEpoch: {"epochs"},
    WithReplacement: {"epochs"},
    SameRowsOnEveryRank: {"shards"},
    DrawsPerRank: {"shards"},
    AcceptsAnyBatch: {"shards"},
    DropsTheLast: {"evaluation", "batch size", "partition"},
    PadsTheLast: {"evaluation", "batch size", "partition"},
    OrderOfTheBatchSize: {"evaluation", "partition"},
    MeanOfMeans: {"batch size"},
    EveryRankEvaluatesAll: {"partition"},
    NoGradient: {"loss"},
    InfiniteLoss: {"loss"},
    LossPerExample: {"loss"},
    AnotherLength: {"spec"},
    SmallerVocabulary: {"spec", "loss", "summary", "batch size"},
    SpecOfTheData: {"spec"},
    AnotherVersion: {"protocol"},
    RandomFingerprint: {"fingerprint"},
    NamelessLoss: {"summary"},
    NoLossMetric: {"metrics", "summary"},
    Lax: {"options"},
    SlowerWithWorkers: {"workers"},
}


def failures(cls, *, slow: bool = False) -> set[str]:
    options = SMALL if cls.Options is Sorting.Options else cls.Options()
    return {result.check for result in run_checks(cls, options=options, slow=slow) if result.status == "failed"}


def test_the_example_keeps_the_whole_contract():
    results = run_checks(Sorting, options=SMALL, slow=True)
    assert {result.check: result.status for result in results} == {check.id: "ok" for check in CHECKS}


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_a_planted_error_fails_its_checks_and_no_others(cls):
    assert failures(cls, slow=cls is SlowerWithWorkers) == ERRORS[cls]


@pytest.mark.parametrize("cls", [MeanOfMeans, DropsTheLast, PadsTheLast], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("examples", [224, 672])
def test_a_split_that_every_batch_size_divides_hides_no_error(cls, examples):
    """224 and 672 are multiples of 1, 7 and 32, and 672 of 2 and 3 processes too."""
    options = Sorting.Options(digits=3, train_examples=examples, valid_examples=examples, test_examples=examples)
    found = {r.check for r in run_checks(cls, options=options) if r.status == "failed"}
    assert found == ERRORS[cls]


@pytest.mark.parametrize("name", ["csv", "folder", "mad-copy", "mqar"])
@pytest.mark.parametrize("weight", ["one per batch", "rows"])
def test_a_task_that_averages_the_means_of_batches_fails(tmp_path, name, weight):
    """Rows as weights are right where every row has as many scored values."""
    local, cls = LOCAL[name], tasks.get(name)

    class Averages(cls):  # type: ignore[valid-type, misc]
        def measure(self, outputs, batch):
            count = 1.0 if weight == "one per batch" else float(batch.size)
            return {key: (total / n * count, count) for key, (total, n) in super().measure(outputs, batch).items()}

    folder = local.write(tmp_path) if local.write else None
    [result] = run_checks(Averages, folder, cls.Options(**local.options), only=["batch size"])
    assert (result.status == "failed") == (weight == "one per batch" or name.startswith("m"))


AVERAGING = """
from tasks.recall.mad_copy import MadCopy

class Averaging(MadCopy):
    name = "averaging"
    protocol = "averaging/1"
    version = 1

    def measure(self, outputs, batch):
        return {key: (total / count, 1.0) for key, (total, count) in super().measure(outputs, batch).items()}
"""


def test_suite_check_fails_for_a_file_whose_task_averages_the_means_of_batches(tmp_path, monkeypatch, capsys):
    from suite.cli import app

    (tmp_path / "mine.py").write_text(AVERAGING)
    sizes = [f"{key}={value}" for key, value in LOCAL["mad-copy"].options.items()]
    given = [part for size in sizes for part in ("--set", size)]
    monkeypatch.setattr("sys.argv", ["suite", "check", f"{tmp_path}/mine.py:Averaging", *given, "--json"])
    with pytest.raises(SystemExit) as end:
        app.main()
    failed = {r["check"] for r in json.loads(capsys.readouterr().out)["results"] if r["status"] == "failed"}
    assert (end.value.code, failed) == (1, {"batch size"})


def test_a_spec_that_depends_on_the_data_declares_the_fields(tmp_path):
    [result] = run_checks(SpecOfTheFolder, tmp_path, SMALL, only=["spec"])
    assert (result.status, dict(result.setting)["fields"]) == ("failed", "vocab")
    declared = type("Declared", (SpecOfTheFolder,), {"data_decides": frozenset({"vocab"})})
    [result] = run_checks(declared, tmp_path, SMALL, only=["spec"])
    assert result.status == "ok"


def test_every_check_finds_one_of_the_planted_errors():
    assert set().union(*ERRORS.values()) == {check.id for check in CHECKS}


def test_a_failure_is_shown_with_the_smallest_setting_and_its_figures():
    [result] = run_checks(DropsTheLast, options=SMALL, only=["evaluation"])
    assert dict(result.setting) == {"split": "train", "batch_size": 32, "evaluated": 32, "n_examples": 40}
    assert "batch_size=32" in result.shown_by


def test_whatever_a_task_raises_is_a_failure_of_the_check():
    class Raises(Sorting):
        def loss(self, outputs, batch):
            raise KeyError("no such thing")

    [result] = run_checks(Raises, options=SMALL, only=["loss"])
    assert (result.status, "KeyError" in result.reason) == ("failed", True)


def test_an_epoch_of_augmented_images_is_compared_by_the_number_of_each_class():
    fashion = tasks.get("fashion-mnist")

    class Unbalanced(fashion):  # type: ignore[valid-type, misc]
        def train_batches(self, *arguments, **more):
            for batch in super().train_batches(*arguments, **more):
                yield Batch(batch.inputs, batch.targets * 0 + 3)

    assert run_checks(Unbalanced, only=["epochs"])[0].status == "failed"


def test_large_splits_are_left_out_unless_slow_checks_are_requested():
    large = Sorting.Options(digits=2, train_examples=40, valid_examples=2_001, test_examples=2_001)
    [result] = run_checks(Sorting, options=large, only=["batch size"])
    assert (result.status, "2,001" in result.reason) == ("not applicable", True)
    [result] = run_checks(Sorting, options=large, only=["batch size"], slow=True)
    assert result.status == "ok"


def test_an_unknown_check_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match=r"'shard'.*shards"):
        run_checks(Sorting, only=["shard"])


def test_results_are_one_json_document_and_one_table():
    results = run_checks(MeanOfMeans, options=SMALL, only=["metrics", "batch size", "epochs"])
    shown = json.loads(json.dumps(as_json("mine", results)))
    assert (shown["task"], shown["holds"]) == ("mine", False)
    assert shown["counts"] == {"ok": 2, "not applicable": 0, "failed": 1}
    assert shown["results"][-1]["setting"]["metric"] in ("accuracy", "loss")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render("mine", results))
    assert "FAILS" in console.export_text()
