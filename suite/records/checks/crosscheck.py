"""Whether a record agrees with itself: all that follows from its config is derived again and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tasks
from backbones.baselines.base import PREFIX, BaselineError
from backbones.mixers.registry import built_in
from suite.config.recipe import SCALES
from suite.config.run_config import BUILT_IN, OWN_ORIGINS, TRAINING_VERSION
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.models.budget import LAYER_TOLERANCE, TOTAL_TOLERANCE
from suite.models.candidate import registered
from suite.records.checks import recount
from suite.records.checks.result_faults import differs, result_faults
from suite.records.schema import Record
from tasks.base import Task


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
        found = [*_of_task(record, task), *_of_certificate(record), *result_faults(record, task)]
    return found


def _of_config(record: Record) -> Iterator[str]:
    config = record.config
    for name in ("task", "mixer", "scale", "seed"):
        yield from differs(name, getattr(record, name), getattr(config, name))
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
    yield from differs("identity", record.identity, config.identity)
    yield from differs("group", record.group, config.group)


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
            yield from differs(field, origin, own, f"its {kind}")
        elif origin in OWN_ORIGINS:
            yield f"{field}: {name!r} is no {kind} of this version"
        yield from differs(f"code.{kind}_origin", getattr(record.code, f"{kind}_origin"), origin)
    if mixer and mixer.package and not config.mixer_origin.startswith(f"{mixer.package} "):
        yield f"config.mixer_origin: {config.mixer_origin!r}, but {config.mixer} wraps the package {mixer.package}"


def _of_versions(record: Record) -> Iterator[str]:
    """No version is later than the suite's own."""
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
    if task is not None:
        yield from differs("domain", record.domain, task.domain, "its task")
        for name, value in vars(task.spec).items():
            if name not in task.data_decides:
                yield from differs(f"spec.{name}", getattr(record.spec, name), value)
        yield from differs("primary_metric", record.primary_metric, task.primary.name)
        yield from differs("higher_is_better", record.higher_is_better, task.primary.higher_is_better)
    yield from differs("config.mixer_options.causal", record.config.mixer_options.causal, record.spec.causal, "spec")


def _of_certificate(record: Record) -> Iterator[str]:
    config, recorded = record.config, record.certificate.model_dump(mode="json")
    try:
        derived = _derived_certificate(record)
    except Exception as error:  # whatever sizing and building raise for what is no model
        yield f"certificate: it cannot be counted again ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return
    for name, value in derived.items():
        if name in recorded:  # one that is older than a field leaves it out
            yield from differs(f"certificate.{name}", recorded[name], value)
    if record.recounted:
        solved = recount.certificate(config, record.spec)["mixer_options"]
        yield from differs("config.mixer_options", config.mixer_options.model_dump(mode="json"), solved, "the solver")
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
    factor = config.model.width_factor
    layers_match = certificate.pays_in_ffn or factor != 1 or abs(mixer_ratio - 1) <= LAYER_TOLERANCE
    return {
        **{name: getattr(config, name) for name in ("task", "scale", "mixer", "hybrid")},
        **recount.reference(config, record.spec),
        "depth": config.model.depth,
        "ratio": ratio,
        "mixer_ratio": mixer_ratio,
        "matched": layers_match and abs(ratio / factor - 1) <= TOTAL_TOLERANCE,
        **options,
    }


def _of_baseline(record: Record) -> Mapping[str, Any]:
    """Of one whose package is not installed, only what does not depend on it; no baseline is ever matched."""
    try:
        return recount.certificate(record.config, record.spec)
    except BaselineError:
        return {**recount.reference(record.config, record.spec), "matched": False}
