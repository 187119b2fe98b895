"""What the store shows of a run, from its record: the same whether it is tracked while it trains or rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.boards.naming import configuration_name, run_name
from suite.records.schema import Record
from suite.tracking.ui.state import CONFIGURATION_TAG

#: Parts of the certificate that the config has too.
_OF_CONFIG = {"task", "scale", "mixer", "hybrid", "mixer_options"}


@dataclass(frozen=True)
class Opening:
    """A run as it begins: what `Tracker` is given.

    experiment: `domain/task`.
    dataset: name, digest, source, and the sizes of the splits as JSON.
    """

    experiment: str
    experiment_tags: dict[str, str]
    run_name: str
    params: dict[str, object]
    tags: dict[str, str]
    dataset: dict[str, str]


def opening(made: Record) -> Opening:
    """What the store shows of a run from its beginning.

    Args:
        made: its record; of a run that begins, without results.

    Returns:
        Names, parameters and tags. Packages and hardware are parameters: the UI shows every tag.
    """
    config, budget = made.config, made.certificate.model_dump(mode="json", exclude=_OF_CONFIG)
    details = {
        "budget": budget,
        "version": made.packages,
        "hardware": made.hardware.model_dump(),
        "versions": made.versions.model_dump(),
        "data": {**config.portable()["data"], "protocol": made.data.protocol},
        "precision": made.precision,
    }
    return Opening(
        experiment=f"{made.domain}/{made.task}",
        experiment_tags={"domain": made.domain, "task": made.task, "protocol": made.data.protocol},
        run_name=run_name(made),
        params=flatten({**config.portable(), **details}),
        tags={
            "mixer": made.mixer,
            CONFIGURATION_TAG: configuration_name(made),
            "scale": made.scale,
            "seed": str(made.seed),
            "matched": str(made.certificate.matched).lower(),
            "identity": made.identity,
            "group": made.group,
            "run": made.id,
            "data.fingerprint": made.data.fingerprint,
            "git_sha": made.code.git_sha or "none",
        },
        dataset={
            "name": made.task,
            "digest": made.data.fingerprint,
            "source": json.dumps({"source": made.data.source, "protocol": made.data.protocol}),
            "profile": json.dumps({"unit": made.data.unit, **made.data.splits}),
        },
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested mappings to dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
