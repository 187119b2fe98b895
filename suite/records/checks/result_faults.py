"""Whether the results in a record agree with its config, its status and each other.

What a run measured (losses, metrics, seconds, the machine) can be checked only for its form and range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from suite.config.identity import canonical_json
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.records.checks.unit_faults import unit_faults
from suite.records.schema import Record, Timing
from tasks.base import Task

SPLITS = ("valid", "test")
#: Where `data.splits` counts the examples of an evaluation; text and series are counted in smaller units.
COUNTS_EXAMPLES = ("vision", "recall")


def differs(field: str, recorded: object, derived: object, source: str = "its config") -> Iterator[str]:
    """A fault where a recorded value is not the derived one.

    Args:
        field: the dotted name.
        recorded: the value in the record.
        derived: what it must be.
        source: what it follows from.

    Yields:
        The fault, if there is one.
    """
    same = recorded == derived and type(recorded) is type(derived)
    if not same and canonical_json(recorded) != canonical_json(derived):
        yield f"{field}: {recorded!r} is recorded, {derived!r} follows from {source}"


def result_faults(record: Record, task: Task | None) -> Iterator[str]:
    """What in the results of a record contradicts its config, its status or its other results.

    Args:
        record: a record whose config is sound.
        task: its task; None for a third party's, or an earlier version's.

    Yields:
        One line per fault, beginning with the field's dotted name.
    """
    train, steps = record.config.train, [step for step, _ in record.loss_trace]
    if (record.error is None) != (record.status == "finished"):
        yield f"error: {record.error!r} is recorded, the status is {record.status!r}"
    if steps != list(train.trace_steps[: len(steps)]):
        yield f"loss_trace: its steps are not those of a run of {train.steps} steps"
    if record.resumed_at != sorted(record.resumed_at) or any(step > train.steps for step in record.resumed_at):
        yield f"resumed_at: {record.resumed_at} is no ascending list of steps up to {train.steps}"
    if train.precision != "auto" or record.hardware.device == "cpu":
        chosen = "fp32" if train.precision == "auto" else train.precision
        yield from differs("precision", record.precision, chosen)
    if record.race is not None:
        yield from differs("race.lr", record.race.lr, train.lr)
        yield from differs("race.seed", record.race.seed, record.seed)
    if record.threads is not None:
        yield from differs("threads.count", record.threads.count, record.hardware.threads, "its hardware")
    if record.status == "finished":
        yield from _of_metrics(record, task)
        yield from _of_selection(record)
        if task is not None:
            yield from _of_examples(record, task)
        yield from _of_timing(record)
    else:
        if record.status == "diverged" and (record.metrics or record.n_evaluated):
            yield from _of_metrics(record, task)
            if task is not None:
                yield from _of_examples(record, task)
        untrained = () if record.status == "diverged" else ("metrics", "n_evaluated")
        if held := [name for name in (*untrained, "selection", "timing") if getattr(record, name)]:
            yield f"{held[0]}: only a finished run has results, this one is {record.status}"
    if record.test_units is not None:
        yield from unit_faults(record)


def _of_metrics(record: Record, task: Task | None) -> Iterator[str]:
    splits = {"valid", "test"}  # of a diverged run, those of its untrained model
    if record.status == "finished":
        splits |= {"valid_last"} | ({"test_skip"} if record.config.skip_variant_layers else set())
    names = {*record.metrics.get("test", {}), record.primary_metric}
    names = {metric.name for metric in task.metrics} if task else names
    yield from differs("metrics", sorted(record.metrics), sorted(splits), "its status")
    for split, values in record.metrics.items():
        yield from differs(f"metrics.{split}", sorted(values), sorted(names), "its task")
    for metric in task.metrics if task else ():
        for split, values in record.metrics.items():  # all metrics that rise are accuracies, all others are errors
            value, most = values.get(metric.name, 0.0), 1.0 if metric.higher_is_better else math.inf
            if not 0 <= value <= most:
                yield f"metrics.{split}.{metric.name}: {value!r} is not in [0, {most:g}]"
    for split, values in record.metrics.items():
        for name, value in task.implied(values).items() if task else ():
            recorded = values.get(name, math.nan)
            if not math.isclose(recorded, value, rel_tol=1e-15):  # exp differs between machines in its last bits
                yield f"metrics.{split}.{name}: {recorded!r} is recorded, {value!r} follows from its other metrics"


def _of_selection(record: Record) -> Iterator[str]:
    chosen, train = record.selection, record.config.train
    if chosen is None:
        yield "selection: a finished run names its checkpoint"
        return
    yield from differs("selection.metric", chosen.metric, record.primary_metric, "its task")
    best = record.metrics.get("valid", {}).get(record.primary_metric)
    yield from differs("selection.value", chosen.value, best, "metrics.valid")
    at_once = record.config.mixer_origin == BASELINE and not record.loss_trace
    if chosen.step != 1 if at_once else not train.validates_after(chosen.step):
        yield f"selection.step: a run of {train.steps} steps does not validate after step {chosen.step}"
    if not at_once and len(record.loss_trace) != len(train.trace_steps):
        yield f"loss_trace: a finished run has {len(train.trace_steps)} losses, not {len(record.loss_trace)}"


def _of_examples(record: Record, task: Task) -> Iterator[str]:
    """All examples of a split are evaluated, unless the task's options limit them."""
    yield from differs("n_evaluated", sorted(record.n_evaluated), sorted(SPLITS), "its status")
    for split, seen in record.n_evaluated.items():
        held = record.data.splits.get(split)
        limit = getattr(record.config.data, f"{split}_limit", 0)
        if not isinstance(held, int) or not isinstance(limit, int):
            yield f"data.splits.{split}: the examples of this split are not counted"
            continue
        most = min(held, limit) if limit else held
        exact = task.domain in COUNTS_EXAMPLES
        if seen != most if exact else seen > most:
            yield f"n_evaluated.{split}: {seen} examples are recorded, data.splits and its config allow {most}"


def _of_timing(record: Record) -> Iterator[str]:
    timing, train = record.timing, record.config.train
    if timing is None:
        yield "timing: a finished run has its seconds"
        return
    loop = timing.step_s + timing.data_s + timing.bookkeeping_s
    derived = {"data_share": timing.data_s, "bookkeeping_share": timing.bookkeeping_s}
    if record.loss_trace:
        derived["steps_per_s"] = train.steps
    for name, part in derived.items():
        yield from _close(timing, name, part / loop if loop else 0.0)
    yield from _close(timing, "examples_per_s", timing.steps_per_s * train.batch_size)


def _close(timing: Timing, name: str, derived: float) -> Iterator[str]:
    """Up to the rounding of another order of operations."""
    recorded = getattr(timing, name)
    if not math.isclose(recorded, derived, rel_tol=1e-9, abs_tol=1e-12):
        yield f"timing.{name}: {recorded!r} is recorded, {derived!r} follows from its seconds"
