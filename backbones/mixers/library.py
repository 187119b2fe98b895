"""Builds one layer for someone's own model: options checked, widths solved for a parameter budget, parameters drawn."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from backbones.mixers.base import Mixer, MixerConfig
from backbones.mixers.errors import MixerError, did_you_mean
from backbones.mixers.registry import get

TOLERANCE = 0.05  # how far from the budget the nearest size may be


def softmax_parameters(dim: int) -> int:
    """Parameters of softmax attention at width D, the default budget: `4·D²`."""
    return 4 * dim * dim


def build_layer(
    mixer: str | type[Mixer], dim: int, length: int, budget: int | None, options: Mapping[str, object]
) -> Mixer:
    """See `backbones.mixers.build`. `options` has `causal` too."""
    name, cls = (mixer, get(mixer)) if isinstance(mixer, str) else (mixer.__qualname__, mixer)
    for label, value in (("dim", dim), ("length", length), ("budget", 1 if budget is None else budget)):
        if not isinstance(value, int) or value < 1:
            raise MixerError(f"{name}: {label} has to be a whole number of at least 1, {value!r} was given")
    wanted = _validated(name, cls, options)
    if not (cls.capabilities.causal if wanted.causal else cls.capabilities.bidirectional):
        raise MixerError(f"{name} has no causal={wanted.causal} variant; build it with causal={not wanted.causal}")
    sized = cls.size(wanted, dim, length, softmax_parameters(dim) if budget is None else budget)
    if budget is not None or not (_has_widths(wanted) or cls.capabilities.pays_in_ffn):
        _require_budget(name, cls, sized, dim, length, budget)
    if obstacle := cls.obstacle():
        raise MixerError(f"{name} cannot be built here: {obstacle}")
    layer = cls(sized, dim, length)
    layer.reset_parameters()
    return layer


def _validated(name: str, cls: type[Mixer], options: Mapping[str, object]) -> MixerConfig:
    fields = cls.Config.model_fields
    for option in options:
        if option not in fields:
            hint = did_you_mean(option, fields)
            raise MixerError(f"{name} has no option {option!r}{hint} (options: {', '.join(fields)})")
    try:
        return cls.Config.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise MixerError(f"{name}: {option}={first['input']!r}: {reason}") from None


def _has_widths(config: MixerConfig) -> bool:
    return any(getattr(config, name) is not None for name in config.solved_options())


def _require_budget(name: str, cls: type[Mixer], sized: MixerConfig, dim: int, length: int, budget: int | None) -> None:
    """Refuses a layer that is more than 5 % off, so that layers built side by side can be compared."""
    wanted, found = budget or softmax_parameters(dim), cls.cost(sized, dim, length).parameters
    if abs(found / wanted - 1) <= TOLERANCE:
        return
    ways = [f"budget={found}", "another dim or heads", *(f"{option}=…" for option in sized.solved_options())]
    raise MixerError(
        f"{name} at dim={dim}, length={length} has no size within 5 % of {wanted:,} parameters, the nearest has "
        f"{found:,}; try {', '.join(ways[:-1])} or {ways[-1]}"
    )
