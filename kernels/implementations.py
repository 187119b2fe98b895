"""Which implementation of a kernel runs on a GPU. Never without a word.

`triton_form` decides a call; `ran` tells what ran on GPUs in this process, for a record. Triton's kernels are chosen
only when the variable `SUITE_TRITON_KERNELS` is "on": they have not been run on a GPU yet. One that is asked for and
can't run (no driver, a width or dtype that it doesn't take, a failure to compile) is announced once with its reason,
and PyTorch runs in its place. Inside a graph of torch.compile the PyTorch form is traced (`kernels.numerics.opaque`
keeps most kernels out of such graphs, and they choose when they run).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor

# "on" asks for them: compiled and interpreted they were looked at, but they have not run on a GPU yet
ASKED = "SUITE_TRITON_KERNELS"
R = TypeVar("R")
_ran: dict[str, set[str]] = {}
_broken: set[str] = set()


def ran() -> dict[str, str]:
    """`{kernel: "triton" | "pytorch" | "pytorch, triton"}` of the calls with tensors on a GPU in this process."""
    return {name: ", ".join(sorted(_ran[name])) for name in sorted(_ran)}


def forget() -> None:
    """Begins a new account: of what ran, of what couldn't, and of what was said."""
    _ran.clear()
    _broken.clear()
    _say_once.cache_clear()


def triton_form(name: str, tensor: Tensor, *asked: Any) -> Any | None:
    """The module `kernels.gpu.<name>` where it is to compute a call whose `asked` its `refusal` doesn't refuse. (ROCm's
    devices are called
    cuda too.)"""
    if tensor.device.type != "cuda" or torch.compiler.is_compiling():
        return None
    module: Any = None
    if name not in _broken and os.environ.get(ASKED, "off") == "on":
        reason = _no_driver()
        if reason is None:
            module = import_module(f"kernels.gpu.{name}")
            reason = module.refusal(*asked)
        if reason is not None:
            _say_once(name, reason)
            module = None
    _ran.setdefault(name, set()).add("triton" if module else "pytorch")
    return module


def attempt(name: str, triton: Callable[[], R], pytorch: Callable[[], R]) -> R:
    """Triton's result; where its compiler or launch fails, PyTorch's, from now on."""
    try:
        return triton()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler raises: its classes differ by version and target
        _broken.add(name)
        _say_once(name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
        _ran.setdefault(name, set()).add("pytorch")
        return pytorch()


@cache
def _no_driver() -> str | None:
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # without a driver each backend has its own
        return f"no Triton driver ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


@cache
def _say_once(name: str, reason: str) -> None:
    warnings.warn(
        f"kernel {name!r} can't run as Triton: {reason}; PyTorch runs in its place", RuntimeWarning, stacklevel=4
    )
