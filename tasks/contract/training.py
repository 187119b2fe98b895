"""Checks of training batches: a function of (seed, step), resumable, and the same whoever computes them."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from tasks.base import Batch, DataError, Shard
from tasks.contract.probe import Probe, check, joined, same

BATCH = 12  # divides among 1, 2, 3, 4 and 6 processes
LARGEST = 512  # examples of a batch, where a whole epoch is read
LONGEST = 20_000  # examples of an epoch that is read whole, unless slow checks are requested
WORLDS = (2, 3)


def _seed_global_generators(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@check("batches", "a training batch is a function of (seed, step): another seed or step gives another batch")
def trains_on_a_function_of_seed_and_step(probe: Probe) -> None:
    for size in (2, BATCH):
        probe.at(batch_size=size, seed=3)
        _seed_global_generators(1)
        first = probe.train(3, 3, size)
        _seed_global_generators(2)
        probe.require(all(map(same, first, probe.train(3, 3, size))), "the same seed and step give another batch")
    other = probe.train(3, 4, BATCH)
    probe.require(not any(map(same, first, other)), "two seeds give the same batch", other_seed=4)
    probe.require(not same(first[0], first[1]), "two steps give the same batch")


@check("resume", "resuming at a step gives the batches that an uninterrupted run sees from there on")
def resumes_at_any_step(probe: Probe) -> None:
    n = probe.task.n_examples("train")
    for size in sorted({2, BATCH, min(LARGEST, n // 3 + 1)}):  # the last one ends the first epoch within the steps
        whole = probe.train(5, 1, size)
        for start in (1, 3):
            probe.at(batch_size=size, start_step=start)
            resumed = probe.train(5 - start, 1, size, start_step=start)
            probe.require(all(map(same, whole[start:], resumed)), "the batches differ from an uninterrupted run's")


@check("generators", "the global generators of Python, NumPy and PyTorch are left as they were")
def leaves_global_generators_alone(probe: Probe) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    _seed_global_generators(5)
    expected = draws()
    for what in ("train", "valid"):
        probe.at(split=what)
        _seed_global_generators(5)
        if what == "train":
            probe.train(2, 0, 4)
        else:
            next(iter(probe.task.eval_batches("valid", 4)))
        probe.require(draws() == expected, "a global generator has moved")


@check("epochs", "training passes over all training examples, each once, in another order in each epoch and seed")
def passes_over_every_example_once(probe: Probe) -> None:
    if not probe.task.has_epochs:
        probe.not_applicable("declares no epochs (has_epochs = True, where training passes over all examples)")
    probe.readable(("train",), LONGEST)
    n = probe.task.n_examples("train")
    size = _divisor(n)
    probe.at(examples=n, batch_size=size)
    both = probe.train(2 * n // size, 0, size)
    first, second = joined(both[: n // size]), joined(both[n // size :])
    probe.require(not same(first, second), "two epochs have the same order")
    every = joined(list(probe.task.eval_batches("train", size)))
    for epoch, seen in (("first", first), ("second", second)):
        probe.at(examples=n, batch_size=size, epoch=epoch)
        _require_same_examples(probe, seen, every)


def _divisor(n: int) -> int:
    """The largest divisor of n that is no larger than a batch may be, so that an epoch ends with a batch; n itself
    where that would be tiny.
    """
    best = max(d for d in range(1, min(n, LARGEST) + 1) if n % d == 0)
    return best if best >= 8 else n


def _require_same_examples(probe: Probe, seen: Batch, every: Batch) -> None:
    """Whether both have the same examples in any order: compared by their inputs, or where those are augmented by the
    number of each class.
    """
    rows = [Counter(row.tobytes() for row in batch.inputs.numpy()) for batch in (seen, every)]
    if rows[0] == rows[1]:
        return
    classes = [_class_totals(batch.targets, seen.targets.shape[-1]) for batch in (seen, every)]
    if seen.inputs.is_floating_point() and classes[0] is not None and classes[1] is not None:
        off = float((classes[0] - classes[1]).abs().max())
        probe.require(off < 0.01, "an epoch has another number of examples of a class", off_by=off)
        return
    missing = sum((rows[1] - rows[0]).values())
    probe.require(False, "an epoch is not every training example once", missing=missing)


def _class_totals(targets: Tensor, classes: int) -> Tensor | None:
    """How many examples each class has, of classes `[N]` or of mixtures `[N, classes]`; None for other targets."""
    if targets.dim() == 1 and not targets.is_floating_point():
        return torch.bincount(targets, minlength=classes if classes > 1 else 0).double()
    return targets.double().sum(0) if targets.dim() == 2 and targets.is_floating_point() else None


@check("shards", "the rows of a training batch that 2 or 3 processes have, joined, are a single process's batch")
def shards_a_training_batch(probe: Probe) -> None:
    for size in (6, BATCH):
        [whole] = probe.train(1, 2, size, start_step=3)
        for world in WORLDS:
            probe.at(batch_size=size, world=world)
            parts = [part for r in range(world) for part in probe.train(1, 2, size, 3, shard=Shard(r, world))]
            sizes = sorted({part.size for part in parts})
            probe.require(sizes == [size // world], "processes have other numbers of rows", rows=str(sizes))
            probe.require(same(joined(parts), whole), "joined, the shards are not the single process's batch")
            _require_refusal(probe, size + 1, world)


def _require_refusal(probe: Probe, size: int, world: int) -> None:
    probe.at(batch_size=size, world=world)
    try:
        probe.train(1, 0, size, shard=Shard(0, world))
    except DataError:
        return
    probe.require(False, "a batch that does not divide is accepted (shard.rows(batch_size) refuses it)")


@check("workers", "loader processes change no batch", slow=True)
def loads_the_same_with_workers(probe: Probe) -> None:
    for workers in (1, 2):
        probe.at(workers=workers)
        same_training = all(map(same, probe.train(3, 0, BATCH), probe.train(3, 0, BATCH, workers=workers)))
        probe.require(same_training, "training batches differ")
        for split in ("valid", "test"):
            probe.at(workers=workers, split=split)
            pairs = zip(
                probe.task.eval_batches(split, BATCH), probe.task.eval_batches(split, BATCH, workers), strict=True
            )
            probe.require(all(same(a, b) for a, b in pairs), "evaluation batches differ")
