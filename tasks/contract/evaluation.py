"""Checks of evaluation: every example once, whatever the batch size and however many processes share the work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tasks.base import Batch, Shard
from tasks.contract.probe import EVALUATED, SPLITS, Probe, check, joined, same

SIZES = (1, 7, 32)
TOLERANCE = 1e-10  # relative; sums in float64 of a few thousand values differ by far less
WORLDS = (2, 3)


def with_remainder(sizes: Sequence[int], n: int) -> tuple[int, ...]:
    """Sizes of parts of n examples, one of which leaves a smaller last part: the mean over equal parts of their means
    would be right, and no part would be padded.

    Args:
        sizes: those that are tried anyway.
        n: number of examples.

    Returns:
        The sizes, and the smallest one that does not divide n if all of them do.
    """
    if any(n % size for size in sizes):
        return tuple(sizes)
    return (*sizes, next(size for size in range(2, n + 2) if n % size))


@check(
    "evaluation",
    "evaluation yields every example of a split once and in a fixed order, at batch sizes 1, 7, 32 and one that leaves "
    "a smaller last batch",
)
def evaluates_every_example_once(probe: Probe) -> None:
    for split in probe.readable(SPLITS):
        n = probe.task.n_examples(split)
        whole: Batch | None = None
        for size in with_remainder(SIZES, n)[::-1]:
            probe.at(split=split, batch_size=size)
            batches = list(probe.task.eval_batches(split, size))
            seen = sum(batch.size for batch in batches)
            probe.require(seen == n, "n_examples() is another number", evaluated=seen, n_examples=n)
            sizes = [batch.size for batch in batches]
            full = all(found == size for found in sizes[:-1]) and sizes[-1] <= size
            probe.require(full, "batches other than the last have another size", sizes=str(sorted(set(sizes))))
            found = joined(batches)
            probe.require(whole is None or same(found, whole), "the examples or their order depend on the batch size")
            whole = found


@check(
    "batch size",
    "metrics do not depend on the batch size: 1, 7, 32 and one that leaves a smaller last batch agree within 1e-10",
)
def measures_the_same_at_any_batch_size(probe: Probe) -> None:
    for split in probe.readable(EVALUATED):
        n = probe.task.n_examples(split)
        largest, *others = probe.batch_sizes(*with_remainder(probe.batch_sizes(*SIZES), n))[::-1]
        _, whole = probe.evaluate(split, largest)
        for size in others:
            _, found = probe.evaluate(split, size)
            for name, value in whole.items():
                probe.at(split=split, batch_size=size, metric=name)
                close = math.isclose(found[name], value, rel_tol=TOLERANCE, abs_tol=1e-15)
                probe.require(close, f"batches of {largest} give another value", value=found[name], other=value)


@check("partition", "the examples that several processes evaluate, joined, are the split: no padding, none twice")
def partitions_a_split(probe: Probe) -> None:
    for split in probe.readable(SPLITS):
        whole = joined(list(probe.task.eval_batches(split, 32)))
        for world in with_remainder(WORLDS, whole.size):
            probe.at(split=split, world=world)
            parts = [list(probe.task.eval_batches(split, 32, shard=Shard(rank, world))) for rank in range(world)]
            sizes = [sum(batch.size for batch in part) for part in parts]
            even = sum(sizes) == whole.size and max(sizes) - min(sizes) <= 1
            probe.require(even, "the parts are uneven, padded or incomplete", sizes=str(sizes), examples=whole.size)
            found = joined([batch for part in parts for batch in part])
            probe.require(same(found, whole), "joined, the parts are not the split")


@check("test units", "every test example belongs to a unit, and the units' sums over counts give the primary metric")
def gives_the_metric_by_unit(probe: Probe) -> None:
    task, units = probe.task, probe.task.test_units()
    for split in probe.readable(("test",)):
        if units is None:
            return
        n = task.n_examples(split)
        probe.at(split=split, units=units.word)
        probe.require(len(units.of_example) == n, "another number of examples has units", examples=n)
        [size] = probe.batch_sizes(32)
        batches = list(task.eval_batches(split, size))
        sums, counts = torch.cat([task.unit_sums(probe.outputs(batch), batch) for batch in batches]).sum(0).tolist()
        _, found = probe.evaluate(split, size)
        expected = found[task.primary.name]
        close = math.isclose(expected, sums / counts, rel_tol=1e-9, abs_tol=1e-15)
        probe.require(close, "the units give another value", value=sums / counts, metric=expected)
