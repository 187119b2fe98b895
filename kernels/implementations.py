"""Which implementation of a kernel runs on a GPU; a fallback is never silent.

`triton_module` decides for one call; `ran` reports what ran on GPUs in this process, for a record. A Triton kernel is
chosen where it has passed `make test-gpu` on that kind of GPU (`PASSED`), which none has yet: none has been run on one.
`SUITE_TRITON_KERNELS=on` requests all of them, `off` none. One that is chosen and can't run (no driver, an unsupported
width or dtype, a failure to compile) is announced once with the reason, and PyTorch runs instead. Inside a graph of
torch.compile the PyTorch implementation is traced (`kernels.numerics.opaque` keeps most kernels out of such graphs, and
they choose when they run).
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

VARIABLE = "SUITE_TRITON_KERNELS"  # "on": all of them, "off": none
#: kernel → the kinds of GPU on which it has passed `make test-gpu`, as `gpu_kind` names them. It is the default there.
#: An entry is added with the output of that command (docs/gpu.md), never without a run.
PASSED: dict[str, tuple[str, ...]] = {}
R = TypeVar("R")
_ran: dict[str, set[str]] = {}
_broken: set[str] = set()


def ran() -> dict[str, str]:
    """`{kernel: "triton" | "pytorch" | "pytorch, triton"}` of the calls with tensors on a GPU in this process."""
    return {name: ", ".join(sorted(_ran[name])) for name in sorted(_ran)}


def forget() -> None:
    """Clears the record of what ran, of what couldn't run, and of the warnings given."""
    _ran.clear()
    _broken.clear()
    _warn_once.cache_clear()


def triton_wanted(name: str, tensor: Tensor) -> bool:
    """Whether the Triton kernel of that name is to compute on the tensor's device: requested, or the default there."""
    if tensor.device.type != "cuda":
        return False
    requested = os.environ.get(VARIABLE)
    if requested in ("on", "off"):
        return requested == "on"
    return name in PASSED and gpu_kind(tensor.device) in PASSED[name]


def gpu_kind(device: torch.device) -> str:
    """What a Triton kernel is compiled for: `sm_90` and the like on NVIDIA, `gfx942` and the like on AMD."""
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def triton_module(name: str, tensor: Tensor, *arguments: Any) -> Any | None:
    """The module `kernels.gpu.<name>` if it is to compute the call with these arguments, else None.

    None on a CPU, without a driver, and where the module's `refusal` of the arguments gives a reason. (The devices of
    ROCm are called cuda too.)
    """
    if tensor.device.type != "cuda" or torch.compiler.is_compiling():
        return None
    module: Any = None
    if name not in _broken and triton_wanted(name, tensor) and tensor.dtype != torch.float64:  # which no kernel takes
        reason = _no_driver()
        if reason is None:
            module = import_module(f"kernels.gpu.{name}")
            reason = module.refusal(*arguments)
        if reason is not None:
            _warn_once(name, reason)
            module = None
    _ran.setdefault(name, set()).add("triton" if module else "pytorch")
    return module


def attempt(name: str, triton: Callable[[], R], pytorch: Callable[[], R]) -> R:
    """The result of Triton; where its compiler or launch fails, that of PyTorch, now and in later calls."""
    try:
        return triton()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler raises: its classes differ by version and target
        _broken.add(name)
        _warn_once(name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
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
def _warn_once(name: str, reason: str) -> None:
    warnings.warn(f"kernel {name!r} can't run as Triton: {reason}; PyTorch runs instead", RuntimeWarning, stacklevel=4)
