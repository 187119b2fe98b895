"""What a processor can do at most: multiply-adds on registers alone, and reading memory. The bench divides by these."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

from kernels.cpu.library import library

#: Of the loop of multiply-adds, on each thread: some milliseconds.
ROUNDS = 200_000
#: Of the array that is read: larger than the caches of any processor.
FLOATS = 2**27


def multiply_adds(rounds: int = ROUNDS) -> tuple[Callable[[], object], float] | None:
    """A loop of fp32 multiply-adds on registers, on as many threads as PyTorch has.

    Args:
        rounds: of the loop.

    Returns:
        What runs it, and its FLOPs, 2 per multiply-add; None where the kernels are not compiled.
    """
    compiled, threads = library(), torch.get_num_threads()
    if compiled is None:
        return None
    loop = compiled.multiply_adds
    loop.argtypes, loop.restype = (ctypes.c_long, ctypes.c_long), ctypes.c_double
    return lambda: loop(rounds, threads), rounds * loop(1, threads)


def reading(floats: int = FLOATS, of: int = FLOATS) -> tuple[Callable[[], object], float] | None:
    """Reading memory once, on as many threads as PyTorch has.

    Args:
        floats: that are read at a time.
        of: length of the array that they are part of: each time the part after the last one is read, so that no cache
            holds it.

    Returns:
        What reads a part, and its bytes; None where the kernels are not compiled.
    """
    compiled, threads = library(), torch.get_num_threads()
    if compiled is None:
        return None
    x_N, place = torch.ones(max(of, floats)), 0
    read = compiled.read_floats
    read.argtypes, read.restype = (ctypes.c_void_p, ctypes.c_long, ctypes.c_long), None

    def part() -> None:
        nonlocal place
        place = place if place + floats <= len(x_N) else 0
        read(x_N.data_ptr() + 4 * place, floats, threads)
        place += floats

    return part, 4.0 * floats
