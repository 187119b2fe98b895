"""Naive reference implementations of the built-in mixers: the formulas as matrix products and loops.

The modules of this folder add theirs with `@naive("name")`, as `function(mixer, x_BTD, context) -> y_BTD`, computed in
the dtype of `x_BTD`. The contract compares `forward` with it in fp64 and counts its FLOPs with PyTorch's counter, so
every product is a matmul, bmm or einsum over all T positions. It may use the mixer's parameters, but not its methods.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from backbones.contract.probe import NaiveForward

NAIVE: dict[str, NaiveForward] = {}


def naive(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the naive reference implementation of these mixers."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        NAIVE.update(dict.fromkeys(names, function))
        return function

    return add


def load_naive_references() -> dict[str, NaiveForward]:
    """Every naive reference implementation, by the mixer's registered name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return NAIVE
