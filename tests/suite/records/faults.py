"""Which fault an edited record has, and whether it names the edited field."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

from suite.config.identity import digest
from suite.records import record
from suite.records.record import RecordError
from suite.records.recorded import RecordedConfig
from suite.records.schema import Record
from tests.suite.records import edited

#: Values that a run claims or measured and that nothing else in its record determines. All others are checked.
FREE = (
    "id",
    "created",
    "code.version",
    "code.git_*",
    "data.fingerprint",
    "data.protocol",
    "data.source",
    "data.unit",
    "data.details.*",
    "data.splits.train",
    "packages.*",
    "product_path",
    "deterministic",
    "parallel.world_size",
    "contract.*",
    "hardware.platform",
    "hardware.processor",
    "hardware.cores",
    "hardware.memory_bytes",
    "hardware.device",
    "implementations.*",
    "peak_memory_bytes",
    "resumed_at.*",
    "metrics.test.loss",
    "metrics.test.top5",
    "metrics.valid_last.*",
    "metrics.valid.loss",
    "metrics.valid.top5",
    "loss_trace.*.1",
    "timing.wall_s",
    "timing.start_s",
    "timing.evaluation_s",
    "mlflow.*",
)


def name_of(path: edited.Place) -> str:
    return ".".join(map(str, path))


def is_free(path: edited.Place) -> bool:
    return any(fnmatchcase(name_of(path), pattern) for pattern in FREE)


def fault_of(content: dict[str, Any]) -> str:
    """Why a record with these values is refused; empty where it is not."""
    try:
        parsed(content)
    except RecordError as error:
        return str(error)
    return ""


def parsed(content: dict[str, Any]) -> Record:
    return record.parse(json.dumps({**content, "hash": digest({k: v for k, v in content.items() if k != "hash"})}))


#: Values of which one follows from the other: the fault may name either
PAIRS = {
    "metrics": "selection.value",
    "selection": "metrics.valid",
    "data": "n_evaluated",
    "hardware": "threads",
    "test_units": "metrics.test",
}


def names(fault: str, path: edited.Place) -> bool:
    """Whether a fault names the changed field or the part of the record it is in. A changed option is named by the
    identity, which covers all of them, or by its copy in the record.
    """
    field, top = fault.partition(": ")[0], str(path[0])
    if top == "config" and field in ("identity", path[-1]):
        return True
    return any(field == part or field.startswith(f"{part}.") for part in (top, PAIRS.get(top, top)))


def with_hashes(content: dict[str, Any]) -> dict[str, Any]:
    """The record after an edit by someone who also computed the identity and the group again."""
    config = RecordedConfig.model_validate(content["config"])
    copies = {name: content["config"][name] for name in ("task", "mixer", "scale", "seed")}
    return {**content, **copies, "identity": config.identity, "group": config.group}
