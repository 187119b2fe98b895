"""Steps of decoding that write the state in place, compiled: which calls they take, and their wrappers.

A step is a few microseconds of work, so a call must cost little: the callers state the shapes, and nothing is parsed.
Nothing is differentiated here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kernels.cpu import call
from kernels.cpu.call import NAMES, WORK_PER_THREAD


def steps_with(state: Sequence[Tensor], *tensors: Tensor | None) -> bool:
    """Whether a compiled step takes these tensors, which are then checked for all but their shapes.

    Args:
        state: what the step writes: contiguous.
        tensors: what it reads; None for what there is not.

    Returns:
        True for ordinary CPU tensors of one dtype, fp32 or fp64, none of them empty or watched by autograd, while
        operations are neither traced nor counted.
    """
    given = [*state, *(x for x in tensors if x is not None)]
    dtype, watched = given[0].dtype, torch.is_grad_enabled()
    if dtype not in NAMES or call.watched_or_refused():
        return False
    for x in given:
        if x.dtype is not dtype or not call.is_plain(x) or (watched and x.requires_grad):
            return False
    return all(x.is_contiguous() for x in state) and call.library() is not None


@cache
def _function(library: ctypes.CDLL, name: str, pointers: int, numbers: int, sizes: int) -> Any:
    found = library[name]
    found.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_double] * numbers + [ctypes.c_long] * sizes
    found.restype = ctypes.c_long
    return found


def run(
    name: str, state: Sequence[Tensor], tensors: Sequence[Tensor | None], numbers: Sequence[float], sizes: list[int]
) -> int:
    """Calls a compiled step.

    Args:
        name: of the C++ function, without its dtype.
        state: the tensors that it writes in place; autograd learns that they have changed.
        tensors: its other pointers, after those of the state.
        numbers: its floating-point arguments.
        sizes: its integer arguments; the number of threads follows.

    Returns:
        What the function returns, where it returns something.
    """
    library = call.library()
    assert library is not None
    call.record(name)
    work = sum(x.numel() for x in state)
    threads = torch.get_num_threads() if work >= 2 * WORK_PER_THREAD else 1
    function = _function(
        library, f"{name}_{NAMES[state[0].dtype]}", len(state) + len(tensors), len(numbers), len(sizes) + 1
    )
    pointers = [None if x is None else x.data_ptr() for x in (*state, *tensors)]
    found: int = function(*pointers, *numbers, *sizes, threads)
    for x in state:
        if not x.is_inference():  # those have no count of their changes
            torch.autograd.graph.increment_version(x)
    return found
