"""The baselines by name: `--mixer baseline/NAME`."""

from __future__ import annotations

import difflib
from typing import Any

from backbones.baselines import gluonts, series
from backbones.baselines.base import PREFIX, Baseline, BaselineError

_BASELINES: dict[str, Baseline[Any]] = {
    f"{PREFIX}seasonal-naive": series.SEASONAL_NAIVE,
    f"{PREFIX}ridge": series.RIDGE,
    f"{PREFIX}dlinear": gluonts.DLINEAR,
    f"{PREFIX}patchtst": gluonts.PATCHTST,
}


def names() -> tuple[str, ...]:
    """Every baseline's name, with its prefix."""
    return tuple(_BASELINES)


def find(name: str) -> Baseline[Any] | None:
    """The baseline of that name, or None."""
    return _BASELINES.get(name)


def get(name: str) -> Baseline[Any]:
    """The baseline of that name. Raises BaselineError with the nearest valid one."""
    if name not in _BASELINES:
        near = difflib.get_close_matches(name, _BASELINES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BaselineError(f"unknown baseline {name!r}{hint} (allowed: {', '.join(_BASELINES)})")
    return _BASELINES[name]
