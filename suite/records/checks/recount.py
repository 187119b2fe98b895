"""What a record's certificate must be: counted again on the meta device, once for each model.

Counting takes .1 to 1 s, so counts are kept in memory and in the cache folder, there with all that they follow from
(`suite.kept`). The 1,000 records of some boards have a few dozen different models.
"""

from __future__ import annotations

from typing import Any

from backbones.mixers.priors.softmax import Softmax
from suite.config.identity import digest
from suite.config.run_config import BUILT_IN, MAX_DEPTH, RunConfig
from suite.kept import code, kept
from suite.models.candidate import registered
from tasks.base import InputSpec

REFERENCE = "softmax"
#: The code that a count depends on.
SOURCES = ("backbones", "kernels", "suite/models", "suite/config")
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
        _counted[key] = kept(
            "certificates",
            key,
            lambda: code(SOURCES),
            lambda: candidate.certify(config, spec, candidate.plan(config, spec)).model_dump(mode="json"),
        )
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
