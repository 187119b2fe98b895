"""Checks of what a task says about itself: options, inputs, data, and the loss and metrics of a fixed model."""

from __future__ import annotations

import json
import math
import re

from pydantic import ValidationError

from tasks.base import Batch, ImageInput, SeriesInput, TextInput
from tasks.contract.probe import EVALUATED, Probe, check


@check("options", "an unknown option is refused, and the options that enter a run's identity are JSON values")
def has_strict_options(probe: Probe) -> None:
    try:
        probe.cls.Options.model_validate({**probe.options.model_dump(), "no_such_option": 1})
    except ValidationError:
        pass
    else:
        probe.require(False, "an unknown option is accepted (extra='forbid' is inherited from TaskOptions)")
    try:
        json.dumps(probe.options.portable(), allow_nan=False)
    except (TypeError, ValueError) as error:
        probe.require(False, f"portable() is not JSON: {error}")
    unknown = probe.options.tuned() - set(probe.cls.Options.model_fields)
    probe.require(not unknown, "tuned() names fields that do not exist", fields=", ".join(sorted(unknown)))


@check("metrics", "metrics have different names, the primary one first, and `loss` is among them")
def names_its_metrics(probe: Probe) -> None:
    names = [metric.name for metric in probe.task.metrics]
    probe.require(len(set(names)) == len(names), "two metrics have one name", metrics=", ".join(names))
    probe.require("loss" in names, "there is no metric `loss`", metrics=", ".join(names))
    probe.require(
        names[:1] == [probe.task.primary.name], "the primary metric is not the first", metrics=", ".join(names)
    )


@check("protocol", "the protocol is a name and a number, for example `sotu/1`; the number is the version")
def has_a_version(probe: Probe) -> None:
    protocol, version = probe.cls.protocol, probe.cls.version
    same = re.fullmatch(rf"[^\s/]+/{version}", protocol) is not None
    probe.require(same and version >= 1, "they differ, or are not of that form", protocol=protocol, version=version)


@check("fingerprint", "the fingerprint is a sha256, the same for another instance, and `info` has it with the sizes")
def has_a_stable_fingerprint(probe: Probe) -> None:
    mine, info = probe.task.fingerprint, probe.task.info()
    probe.require(re.fullmatch("[0-9a-f]{64}", mine) is not None, "it is not a sha256 in hex", fingerprint=mine)
    other = probe.new()
    other.load()
    probe.require(other.fingerprint == mine, "another instance has another one", first=mine, second=other.fingerprint)
    probe.require(info.fingerprint == mine, "info() has another one", task=mine, info=info.fingerprint)
    probe.require(info == probe.task.info(), "info() changes from call to call")
    for split, size in info.splits.items():
        probe.require(size > 0, "info() has an empty split", split=split, size=size)


@check("spec", "the spec is known before the data are loaded, and training and evaluation batches have its shapes")
def has_batches_of_its_spec(probe: Probe) -> None:
    before, after = probe.new().spec, probe.task.spec
    probe.require(
        isinstance(after, TextInput | ImageInput | SeriesInput), "it is none of tasks.base's", spec=str(after)
    )
    probe.require(before == after, "it changes when the data are loaded", before=str(before), after=str(after))
    unknown = vars(probe.cls(probe.options).spec)
    differing = {name for name, value in vars(after).items() if unknown.get(name) != value} - probe.cls.data_decides
    probe.require(not differing, "without data it differs (see data_decides)", fields=", ".join(sorted(differing)))
    for size in (1, 6):
        probe.at(split="train", batch_size=size)
        [batch] = probe.train(1, 0, size)
        _require_shapes(probe, batch)
        probe.require(batch.size == size, "a training batch has another size", size=batch.size)
        for split in EVALUATED:
            probe.at(split=split, batch_size=size)
            _require_shapes(probe, next(iter(probe.task.eval_batches(split, size))))


def _require_shapes(probe: Probe, batch: Batch) -> None:
    spec, inputs = probe.task.spec, batch.inputs
    found = tuple(inputs.shape[1:])
    if isinstance(spec, TextInput):
        probe.require(not inputs.is_floating_point(), "tokens are integers", dtype=str(inputs.dtype))
        probe.require(
            len(found) == 1 and found[0] <= spec.length, "inputs are not [B, T], T ≤ length", shape=str(found)
        )
        low, high = int(inputs.min()), int(inputs.max())
        probe.require(0 <= low <= high < spec.vocab, "tokens outside the vocabulary", smallest=low, largest=high)
    else:
        wanted = _shape_of(spec)
        probe.require(found == wanted, "inputs have another shape", shape=str(found), spec=str(wanted))
        probe.require(inputs.is_floating_point(), "inputs are not floating-point numbers", dtype=str(inputs.dtype))
        probe.require(bool(inputs.isfinite().all()), "inputs are not finite")
    rows = batch.targets.shape[0]
    probe.require(rows == batch.size, "targets have another number of rows", inputs=batch.size, targets=rows)


def _shape_of(spec: ImageInput | SeriesInput) -> tuple[int, ...]:
    """The shape of one example's inputs."""
    if isinstance(spec, ImageInput):
        return spec.channels, spec.height, spec.width
    return spec.look_back, spec.channels


@check("loss", "the loss is a finite scalar whose gradient with respect to the outputs is finite and not zero")
def has_a_differentiable_loss(probe: Probe) -> None:
    for size in probe.batch_sizes(2, 8):
        probe.at(batch_size=size)
        [batch] = probe.train(1, 0, size)
        outputs = probe.outputs(batch).float().requires_grad_()
        loss = probe.task.loss(outputs, batch)
        probe.require(loss.shape == (), "it is no scalar", shape=str(tuple(loss.shape)))
        probe.require(bool(loss.isfinite()), "it is not finite", loss=loss.item())
        probe.require(loss.requires_grad, "it does not depend on the outputs")
        loss.backward()
        slope = outputs.grad
        probe.require(slope is not None and bool(slope.isfinite().all()), "its gradient is not finite")
        probe.require(slope is not None and bool(slope.any()), "its gradient is zero")


@check("summary", "evaluation gives every metric, and finite values for a finite model")
def summarises_every_metric(probe: Probe) -> None:
    wanted = {metric.name for metric in probe.task.metrics}
    for split in probe.readable(EVALUATED):
        probe.at(split=split)
        _, found = probe.evaluate(split, probe.batch_sizes(32)[0])
        names = ", ".join(sorted(wanted ^ set(found)))
        probe.require(set(found) == wanted, "summarise() and `metrics` differ", names=names)
        for name, value in found.items():
            probe.require(math.isfinite(value), "a metric is not finite", metric=name, value=value)
