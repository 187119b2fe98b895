"""Functions that a compiled graph leaves to eager mode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch._compile import _disable_dynamo

P = ParamSpec("P")
R = TypeVar("R")


def eager_only(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.compiler.disable` as a decorator, which imports the compiler (2 CPU seconds) only where something else
    has.

    Args:
        function: any function.

    Returns:
        A function that is never traced, nor what it calls.
    """
    disabled = _disable_dynamo(function)  # PyTorch's own late form of `torch.compiler.disable`

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling() and "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        return disabled(*args, **kwargs)

    return call
