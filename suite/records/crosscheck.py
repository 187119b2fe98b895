"""Whether a record agrees with itself: all that follows from its config is derived again and compared, and a finished
run must have its results.

What a run measured (losses, metrics, seconds, the machine) can be checked only for its form and range here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import tasks
from backbones.baselines.base import PREFIX, BaselineError
from backbones.mixers.registry import built_in
from suite.config.identity import canonical_json
from suite.config.recipe import SCALES
from suite.config.run_config import BUILT_IN, OWN_ORIGINS, TRAINING_VERSION
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.models.budget import LAYER_TOLERANCE, TOTAL_TOLERANCE
from suite.models.candidate import registered
from suite.records import recount
from suite.records.schema import Record, Timing
from tasks.base import Task

SPLITS = ("valid", "test")
DOMAINS = {"text": ("language", "recall"), "image": ("vision",), "series": ("forecasting",)}
#: Where `data.splits` counts the examples of an evaluation; text and series are counted in smaller units.
COUNTS_EXAMPLES = ("vision", "recall")


def faults(record: Record) -> list[str]:
    """What in a record contradicts the rest of it.

    Args:
        record: any record that fits the schema.

    Returns:
        One line per fault, beginning with the field's dotted name; empty for a sound record.
    """
    found = list(_of_config(record))
    if not found:  # the rest follows from the config, so it is not derived from a wrong one
        task = _task(record)
        found = [*_of_task(record, task), *_of_certificate(record), *_of_results(record, task)]
    return found


def _differs(field: str, recorded: object, derived: object, source: str = "its config") -> Iterator[str]:
    same = recorded == derived and type(recorded) is type(derived)
    if not same and canonical_json(recorded) != canonical_json(derived):
        yield f"{field}: {recorded!r} is recorded, {derived!r} follows from {source}"


def _of_config(record: Record) -> Iterator[str]:
    config = record.config
    for name in ("task", "mixer", "scale", "seed"):
        yield from _differs(name, getattr(record, name), getattr(config, name))
    if config.scale not in SCALES:
        yield f"config.scale: {config.scale!r} is unknown to this version"
    yield from _of_origin(record)
    yield from _of_versions(record)
    if config.portable() != config.canonical():
        yield "config: it holds a path of the machine that made it"
    if config.hybrid and not _is_layout(config.hybrid, config.model.depth):
        yield f"config.hybrid: {list(config.hybrid)} is no layout of {config.model.depth} layers"
    if config.skip_variant_layers and not config.hybrid:
        yield "config.skip_variant_layers: only a hybrid has layers to skip"
    yield from _differs("identity", record.identity, config.identity)
    yield from _differs("group", record.group, config.group)


def _is_layout(layers: tuple[int, ...], depth: int) -> bool:
    return list(layers) == sorted(set(layers) & set(range(1, depth + 1))) and len(layers) < depth


def _of_origin(record: Record) -> Iterator[str]:
    """A third party can claim neither the suite's origin nor the name of one of its tasks or mixers."""
    config, mixer = record.config, built_in(record.config.mixer)
    own_task = BUILT_IN if tasks.built_in(config.task) else None
    own_mixer = BASELINE if config.mixer.startswith(PREFIX) else BUILT_IN if mixer and not mixer.package else None
    for kind, name, own in (("task", config.task, own_task), ("mixer", config.mixer, own_mixer)):
        origin, field = getattr(config, f"{kind}_origin"), f"config.{kind}_origin"
        if ".py:" in name:
            file = name.rpartition(":")[0]
            if not origin.startswith(f"{file}@"):
                yield f"{field}: {origin!r} is not of the file {file!r}"
        elif own:
            yield from _differs(field, origin, own, f"its {kind}")
        elif origin in OWN_ORIGINS:
            yield f"{field}: {name!r} is no {kind} of this version"
        yield from _differs(f"code.{kind}_origin", getattr(record.code, f"{kind}_origin"), origin)
    if mixer and mixer.package and not config.mixer_origin.startswith(f"{mixer.package} "):
        yield f"config.mixer_origin: {config.mixer_origin!r}, but {config.mixer} wraps the package {mixer.package}"


def _of_versions(record: Record) -> Iterator[str]:
    """None is from the future."""
    task, mixer = tasks.built_in(record.config.task), registered(record.config.mixer)
    known = {"training": TRAINING_VERSION}
    known |= {"task": task.version} if task and record.config.task_origin == BUILT_IN else {}
    known |= {"mixer": mixer.version} if mixer and record.config.mixer_origin in OWN_ORIGINS else {}
    for name, version in known.items():
        if getattr(record.versions, name) > version:
            yield f"versions.{name}: {getattr(record.versions, name)} is recorded, this suite has {version}"


def _task(record: Record) -> Task | None:
    """The record's task, where it ships with the suite in this version. Building it reads no data."""
    found = tasks.built_in(record.task)
    return found(record.config.data) if found and found.version == record.versions.task else None


def _of_task(record: Record, task: Task | None) -> Iterator[str]:
    if record.domain not in DOMAINS[record.spec.kind]:
        yield f"domain: {record.domain!r} is recorded, its inputs are of kind {record.spec.kind!r}"
    if task is not None:
        yield from _differs("domain", record.domain, task.domain, "its task")
        for name, value in vars(task.spec).items():
            if name not in task.data_decides:
                yield from _differs(f"spec.{name}", getattr(record.spec, name), value)
        yield from _differs("primary_metric", record.primary_metric, task.primary.name)
        yield from _differs("higher_is_better", record.higher_is_better, task.primary.higher_is_better)
    yield from _differs("config.mixer_options.causal", record.config.mixer_options.causal, record.spec.causal, "spec")


def _of_certificate(record: Record) -> Iterator[str]:
    config, recorded = record.config, record.certificate.model_dump(mode="json")
    try:
        derived = _derived_certificate(record)
    except Exception as error:  # whatever sizing and building raise for what is no model
        yield f"certificate: it cannot be counted again ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return
    for name, value in derived.items():
        yield from _differs(f"certificate.{name}", recorded[name], value)
    if record.recounted:
        solved = recount.certificate(config, record.spec)["mixer_options"]
        yield from _differs("config.mixer_options", config.mixer_options.model_dump(mode="json"), solved, "the solver")
    if record.certificate.matched == bool(record.certificate.reasons):
        yield "certificate.reasons: there are some if and only if a run is not matched"
    if not (record.certificate.matched or config.unmatched or config.mixer_origin == BASELINE):
        yield "certificate.matched: a run that is not matched must be declared so (config.unmatched)"


def _derived_certificate(record: Record) -> Mapping[str, Any]:
    """What the certificate must hold, by field: all of it for what ships with the suite, and for a third party's mixer
    what does not depend on its code.
    """
    config, certificate = record.config, record.certificate
    options = {"mixer_options": config.recorded()["mixer_options"]}
    if record.recounted:
        return {**recount.certificate(config, record.spec), **options}
    if config.mixer_origin == BASELINE:
        return {**_of_baseline(record), **options}
    ratio = certificate.parameters / max(certificate.reference_parameters, 1)
    mixer_ratio = certificate.mixer_parameters / max(certificate.reference_mixer_parameters, 1)
    layers_match = certificate.pays_in_ffn or abs(mixer_ratio - 1) <= LAYER_TOLERANCE
    return {
        **{name: getattr(config, name) for name in ("task", "scale", "mixer", "hybrid")},
        **recount.reference(config, record.spec),
        "depth": config.model.depth,
        "ratio": ratio,
        "mixer_ratio": mixer_ratio,
        "matched": layers_match and abs(ratio - 1) <= TOTAL_TOLERANCE,
        **options,
    }


def _of_baseline(record: Record) -> Mapping[str, Any]:
    """Of one whose package is not installed, only what does not depend on it; no baseline is ever matched."""
    try:
        return recount.certificate(record.config, record.spec)
    except BaselineError:
        return {**recount.reference(record.config, record.spec), "matched": False}


def _of_results(record: Record, task: Task | None) -> Iterator[str]:
    train, steps = record.config.train, [step for step, _ in record.loss_trace]
    if (record.error is None) != (record.status == "finished"):
        yield f"error: {record.error!r} is recorded, the status is {record.status!r}"
    if steps != list(train.trace_steps[: len(steps)]):
        yield f"loss_trace: its steps are not those of a run of {train.steps} steps"
    if record.resumed_at != sorted(record.resumed_at) or any(step > train.steps for step in record.resumed_at):
        yield f"resumed_at: {record.resumed_at} is no ascending list of steps up to {train.steps}"
    if train.precision != "auto" or record.hardware.device == "cpu":
        chosen = "fp32" if train.precision == "auto" else train.precision
        yield from _differs("precision", record.precision, chosen)
    if record.race is not None:
        yield from _differs("race.lr", record.race.lr, train.lr)
        yield from _differs("race.seed", record.race.seed, record.seed)
    if record.threads is not None:
        yield from _differs("threads.count", record.threads.count, record.hardware.threads, "its hardware")
    if record.status == "finished":
        yield from _of_metrics(record, task)
        yield from _of_selection(record)
        yield from _of_examples(record, task)
        yield from _of_timing(record)
    elif held := [name for name in ("metrics", "n_evaluated", "selection", "timing") if getattr(record, name)]:
        yield f"{held[0]}: only a finished run has results, this one is {record.status}"


def _of_metrics(record: Record, task: Task | None) -> Iterator[str]:
    splits = {"valid", "valid_last", "test"} | ({"test_skip"} if record.config.skip_variant_layers else set())
    names = {*record.metrics.get("test", {}), record.primary_metric}
    names = {metric.name for metric in task.metrics} if task else names
    yield from _differs("metrics", sorted(record.metrics), sorted(splits), "its status")
    for split, values in record.metrics.items():
        yield from _differs(f"metrics.{split}", sorted(values), sorted(names), "its task")
    for metric in task.metrics if task else ():
        for split, values in record.metrics.items():  # all metrics that rise are accuracies, all others are errors
            value, most = values.get(metric.name, 0.0), 1.0 if metric.higher_is_better else math.inf
            if not 0 <= value <= most:
                yield f"metrics.{split}.{metric.name}: {value!r} is not in [0, {most:g}]"


def _of_selection(record: Record) -> Iterator[str]:
    chosen, train = record.selection, record.config.train
    if chosen is None:
        yield "selection: a finished run names its checkpoint"
        return
    yield from _differs("selection.metric", chosen.metric, record.primary_metric, "its task")
    best = record.metrics.get("valid", {}).get(record.primary_metric)
    yield from _differs("selection.value", chosen.value, best, "metrics.valid")
    at_once = record.config.mixer_origin == BASELINE and not record.loss_trace
    if chosen.step != 1 if at_once else not train.validates_after(chosen.step):
        yield f"selection.step: a run of {train.steps} steps does not validate after step {chosen.step}"
    if not at_once and len(record.loss_trace) != len(train.trace_steps):
        yield f"loss_trace: a finished run has {len(train.trace_steps)} losses, not {len(record.loss_trace)}"


def _of_examples(record: Record, task: Task | None) -> Iterator[str]:
    """All examples of a split are evaluated, unless the task's options limit them."""
    yield from _differs("n_evaluated", sorted(record.n_evaluated), sorted(SPLITS), "its status")
    for split, seen in record.n_evaluated.items():
        held = record.data.splits.get(split)
        limit = getattr(record.config.data, f"{split}_limit", 0)
        if not isinstance(held, int) or not isinstance(limit, int):
            yield f"data.splits.{split}: the examples of this split are not counted"
            continue
        most = min(held, limit) if limit else held
        exact = task is not None and task.domain in COUNTS_EXAMPLES
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
