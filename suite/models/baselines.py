"""Baselines: models of other makes, `--mixer baseline/NAME`. The same runner, data and record; never matched, so never
ranked.

They stand on the boards of their task because everything but the model is the same: data, steps, batches, selection,
metrics.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from backbones.baselines import gluonts
from backbones.baselines.series import ClosedForm, Ridge, SeasonalNaive
from backbones.mixers.base import MixerConfig
from suite.config.run_config import ModelConfig
from suite.errors import UserError
from tasks.base import Domain, InputSpec, SeriesInput

PREFIX = "baseline/"
ORIGIN = "baseline"
REASON = "a baseline: a model of another make, shown beside the ranks"


class BaselineOptions(MixerConfig):
    """A baseline's options stand where a mixer's do; `causal` and `heads` mean nothing to it."""


class NaiveOptions(BaselineOptions):
    season: int = Field(default=0, ge=0, description="steps of a season; 0: the task's (a day, or a week of days)")


class RidgeOptions(BaselineOptions):
    penalty: float = Field(
        default=1.0, gt=0, description="α of the penalty on the squared coefficients, over sums of all training windows"
    )


class GluonTSOptions(BaselineOptions):
    scaling: gluonts.Scaling = Field(
        default="std",
        description="of each window: by mean and deviation (std), mean absolute value (mean, GluonTS's "
        "default), or none",
    )


class DLinearOptions(GluonTSOptions):
    hidden: int = Field(default=20, ge=1, description="values a step before the output layer (GluonTS's default: 20)")
    kernel: int = Field(default=25, ge=1, description="steps of the moving average, an odd number")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"the moving average needs an odd number of steps; take {kernel + 1}")
        return kernel


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
        known = (
            f"a season of {season} steps does not fit into a look-back of {spec.look_back}"
            if season
            else "this task knows no season"
        )
        raise UserError(f"{PREFIX}seasonal-naive: {known}; name one of 1 to {spec.look_back}: --set mixer.season=…")
    return SeasonalNaive(spec.look_back, spec.horizon, season)


def _ridge(spec: SeriesInput, options: BaselineOptions, model: ModelConfig) -> nn.Module:
    assert isinstance(options, RidgeOptions)
    return Ridge(spec.look_back, spec.horizon, options.penalty)


def _dlinear(spec: SeriesInput, options: BaselineOptions, model: ModelConfig) -> nn.Module:
    assert isinstance(options, DLinearOptions)
    o = options
    with _lightning("dlinear"):
        return gluonts.dlinear(
            spec.look_back, spec.horizon, spec.head, hidden=o.hidden, kernel=o.kernel, scaling=o.scaling
        )


def _patchtst(spec: SeriesInput, options: BaselineOptions, model: ModelConfig) -> nn.Module:
    """Of the width, depth, heads, feed-forward width and dropout of the softmax reference."""
    assert isinstance(options, GluonTSOptions)
    with _lightning("patchtst"):
        return gluonts.patchtst(
            spec.look_back,
            spec.horizon,
            spec.head,
            patch=spec.patch,
            stride=spec.stride,
            dim=model.dim,
            heads=model.heads,
            depth=model.depth,
            ffn_width=model.ffn_width,
            dropout=model.dropout,
            scaling=options.scaling,
        )


@contextmanager
def _lightning(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{PREFIX}{name} is GluonTS's and needs Lightning ({reason}): pip install 'mixer-suite[baselines]'"
        ) from None


_BASELINES = {
    f"{PREFIX}seasonal-naive": Baseline("forecasting", NaiveOptions, _naive),
    f"{PREFIX}ridge": Baseline("forecasting", RidgeOptions, _ridge),
    f"{PREFIX}dlinear": Baseline("forecasting", DLinearOptions, _dlinear),
    f"{PREFIX}patchtst": Baseline("forecasting", GluonTSOptions, _patchtst),
}


def is_baseline(name: str) -> bool:
    """Whether a name is in the baselines' room, known or not. Mixers' names have no slash, and files of mixers end in
    `.py:Class`.
    """
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
    return sum(p.numel() for p in model.parameters() if p.requires_grad or isinstance(model, ClosedForm))


def flops_of(model: nn.Module, spec: SeriesInput) -> int:
    """Forward FLOPs of one window of all channels, counted on the model where it stands (the meta device will do)."""
    if isinstance(model, ClosedForm):
        return 2 * parameters_of(model) * spec.channels
    window_BNC = torch.zeros(1, spec.look_back, spec.channels, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        model(window_BNC)
    return int(counter.get_total_flops())
