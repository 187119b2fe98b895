"""The plain forms of the built-in mixers: slow and obvious, straight from the formulas, from matrix products and loops.

Every module of this folder adds its own with `@naive("name")`, as `function(mixer, x_BTD, context) -> y_BTD`, computed
in the dtype of `x_BTD`. The contract compares `forward` with it in fp64 and counts its FLOPs with PyTorch's counter, so
a plain form spells every product as a matmul, bmm or einsum over all T positions. It may use the mixer's parameters and
none of its methods.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from backbones.contract.probe import NaiveForward

NAIVE: dict[str, NaiveForward] = {}


def naive(*names: str) -> Callable[[NaiveForward], NaiveForward]:
    """Decorator: offers a plain form for these mixers."""

    def add(function: NaiveForward) -> NaiveForward:
        NAIVE.update(dict.fromkeys(names, function))
        return function

    return add


def load_naive_references() -> dict[str, NaiveForward]:
    """Every plain form, by the mixer's registered name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return NAIVE
