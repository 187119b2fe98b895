"""Baselines: models without a sequence mixer, `--mixer baseline/NAME`. The same runner, data and record; never matched, so never ranked.

They stand on the boards of their task because everything but the model is the same: data, steps, batches, selection, metrics.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field
from torch import nn

from backbones.mixers.base import MixerConfig
from backbones.series_baselines import Ridge, SeasonalNaive
from suite.config import ModelConfig
from suite.errors import UserError
from tasks.base import Domain, InputSpec, SeriesInput

PREFIX = "baseline/"
ORIGIN = "baseline"
REASON = "a baseline: another model without a sequence mixer, shown beside the ranks"


class BaselineOptions(MixerConfig):
    """A baseline's options stand where a mixer's do; `causal` and `heads` mean nothing to it."""


class NaiveOptions(BaselineOptions):
    season: int = Field(default=0, ge=0, description="steps of a season; 0: the task's (a day, or a week of days)")


class RidgeOptions(BaselineOptions):
    penalty: float = Field(default=1.0, gt=0, description="α of the penalty on the squared coefficients, over sums of all training windows")


@dataclass(frozen=True)
class Baseline:
    """One baseline: its options, the domain it is for, and how it is built."""

    domain: Domain
    options: type[BaselineOptions]
    build: Callable[[SeriesInput, BaselineOptions, ModelConfig], nn.Module]


def _naive(spec: SeriesInput, options: BaselineOptions, model: ModelConfig) -> nn.Module:
    assert isinstance(options, NaiveOptions)
    season = options.season or spec.season
    if not 1 <= season <= spec.look_back:
        known = f"a season of {season} steps does not fit into a look-back of {spec.look_back}" if season else "this task knows no season"
        raise UserError(f"{PREFIX}seasonal-naive: {known}; name one of 1 to {spec.look_back}: --set mixer.season=…")
    return SeasonalNaive(spec.look_back, spec.horizon, season)


def _ridge(spec: SeriesInput, options: BaselineOptions, model: ModelConfig) -> nn.Module:
    assert isinstance(options, RidgeOptions)
    return Ridge(spec.look_back, spec.horizon, options.penalty)


_BASELINES = {
    f"{PREFIX}seasonal-naive": Baseline("forecasting", NaiveOptions, _naive),
    f"{PREFIX}ridge": Baseline("forecasting", RidgeOptions, _ridge),
}


def is_baseline(name: str) -> bool:
    """Whether a name is in the baselines' room, known or not. Mixers' names have no slash, and files of mixers end in `.py:Class`."""
    return name.startswith(PREFIX) and ".py:" not in name


def get(name: str) -> Baseline:
    """The baseline of that name. Raises UserError with the nearest one."""
    if name not in _BASELINES:
        near = difflib.get_close_matches(name, _BASELINES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown baseline {name!r}{hint} (allowed: {', '.join(_BASELINES)})")
    return _BASELINES[name]


def build(name: str, spec: InputSpec, options: MixerConfig, model: ModelConfig) -> nn.Module:
    """The model of a baseline. Raises UserError where it cannot be built for these inputs."""
    assert isinstance(spec, SeriesInput)
    assert isinstance(options, BaselineOptions)
    return get(name).build(spec, options, model)


def parameters_of(model: nn.Module) -> int:
    """All that is fitted, by gradients or at once."""
    return sum(p.numel() for p in model.parameters())
