"""Tasks with one planted error each, and the checks of the contract that must find it."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ConfigDict

import tasks
from tasks.base import WHOLE, Batch, Shard, TaskOptions
from tasks.units import parts
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


class UnitsOfAnotherMetric(Sorting):
    def test_units(self):
        return parts(self.n_examples("test"))

    def unit_sums(self, outputs, batch):
        return torch.ones(batch.size, 2, dtype=torch.float64)


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
    UnitsOfAnotherMetric: {"test units"},
}
