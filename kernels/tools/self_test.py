"""Compares a compiled library with PyTorch's own operations: `python -m kernels.tools.self_test FILE`, exit code 0
where all kernels agree.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch
from torch import Tensor

from kernels.calls import Call
from kernels.cpu import call as calls
from kernels.cpu.library import load
from kernels.registry import KERNELS, Kernel

TOLERANCE = 1e-9  # of the largest entry, in fp64


def difference(kernel: Kernel, call: Call, library: ctypes.CDLL) -> float:
    """How far a kernel in C++ is from PyTorch's operations.

    Args:
        kernel: one that has a C++ implementation.
        call: one of its calls.
        library: the compiled library.

    Returns:
        The largest difference of results and gradients, relative to the largest entry of each.
    """
    fast, slow = (_computed(kernel, call, each) for each in (library, None))
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(fast, slow, strict=True))


def _computed(kernel: Kernel, call: Call, library: ctypes.CDLL | None) -> list[Tensor]:
    vars(calls)["library"] = lambda: library
    leaves = [x.double().requires_grad_() for x in call.draw(torch.float64)]
    found = kernel.load()(*call.arguments(*leaves))
    results = [y for y in (found if isinstance(found, tuple) else (found,)) if isinstance(y, Tensor)]
    return [
        *(y.detach() for y in results),
        *torch.autograd.grad(torch.stack([y.sin().sum() for y in results]).sum(), leaves),
    ]


def main() -> None:
    """Prints the first kernel that differs."""
    library = load(Path(sys.argv[1]))
    for kernel in KERNELS:
        for call in kernel.calls if kernel.cpp else ():
            error = difference(kernel, call, library)
            if not error <= TOLERANCE:
                sys.exit(f"{kernel.name}, {call.name}: off by {error:.2g}")


if __name__ == "__main__":
    main()
