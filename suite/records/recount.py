"""What a record's certificate must be: counted again on the meta device, once for each model.

Counting takes .1 to 1 s, so counts are kept in memory and in the cache folder, there together with a hash of the code
that made them. The 1,000 records of some boards have a few dozen different models.
"""

from __future__ import annotations

import contextlib
import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import backbones
import suite
from backbones.mixers.priors.softmax import Softmax
from suite.config.identity import digest
from suite.config.run_config import BUILT_IN, MAX_DEPTH, RunConfig
from suite.models.candidate import Candidate, registered
from tasks.base import DataError, InputSpec
from tasks.storage.cache import folder, write_text

REFERENCE = "softmax"
_counted: dict[str, dict[str, Any]] = {}


def certificate(config: RunConfig, spec: InputSpec) -> dict[str, Any]:
    """The certificate of a config whose mixer or baseline ships with the suite.

    Args:
        config: the resolved config.
        spec: the task's inputs and outputs.

    Returns:
        The certificate as plain JSON values.

    Raises:
        ValueError: the mixer does not ship with the suite, or the model is too deep to be counted.
        Exception: whatever sizing or building the model raises where no such model can be built.
    """
    candidate = registered(config.mixer)
    if candidate is None:
        raise ValueError(f"mixer {config.mixer!r} is unknown to this version")
    if config.model.depth > MAX_DEPTH:
        raise ValueError(f"a model of {config.model.depth} layers is not counted (at most {MAX_DEPTH})")
    key = _key(config, spec)
    if key not in _counted:
        _counted[key] = _read(key) or _count(key, candidate, config, spec)
    return _counted[key]


def reference(config: RunConfig, spec: InputSpec) -> dict[str, Any]:
    """The part of a certificate that does not depend on the mixer: its `reference_` fields, the length, the width and
    the unit of FLOPs. Arguments and errors are those of `certificate`.
    """
    options = Softmax.Config(causal=spec.causal, heads=config.model.heads)
    changed = {"mixer": REFERENCE, "mixer_origin": BUILT_IN, "mixer_options": options, "hybrid": ()}
    found = certificate(config.model_copy(update=changed), spec)
    names = ("length", "dim", "flops_unit", *(name for name in found if name.startswith("reference_")))
    return {name: found[name] for name in names}


def _key(config: RunConfig, spec: InputSpec) -> str:
    """A digest of all that a certificate depends on."""
    parts = config.model_dump(mode="json", include={"task", "scale", "mixer", "mixer_options", "hybrid", "model"})
    return digest([parts, vars(spec)])


def _count(key: str, candidate: Candidate, config: RunConfig, spec: InputSpec) -> dict[str, Any]:
    found = candidate.certify(config, spec, candidate.plan(config, spec)).model_dump(mode="json")
    with contextlib.suppress(DataError):  # where no cache can be written, it is counted again next time
        write_text(_file(key), json.dumps({"sources": _sources(), "certificate": found}))
    return found


def _read(key: str) -> dict[str, Any] | None:
    try:
        content = json.loads(_file(key).read_text("utf-8"))
        return content["certificate"] if content["sources"] == _sources() else None
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return None


def _file(key: str) -> Path:
    return folder("certificates") / f"{key[:32]}.json"


@cache
def _sources() -> str:
    """sha256 of the code that a count depends on, so that counts of changed code are not used."""
    content, root = sha256(), Path(suite.__file__).parent
    parts = (Path(backbones.__file__).parent, root / "models", root / "config")
    for path in sorted(file for part in parts for file in part.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
