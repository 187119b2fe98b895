"""Calls into the compiled library: which calls it takes, and how tensors get there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kernels.cpu.library import library, products

WORK_A_THREAD = 1 << 17  # numbers: below that a thread costs more than it takes over
WATCHERS = ("_FlopCounterMode", "ProxyTorchDispatchMode")  # they know PyTorch's own operations only
NAMES = {torch.float32: "float", torch.float64: "double"}


def takes(shapes: str, *tensors: Tensor) -> bool:
    """Whether the compiled form computes this call: plain tensors of one dtype on a CPU, none empty, of the shapes it
    reads without asking
    ("*D D": a letter is one size wherever it stands, 1 is 1, * any number of dimensions), while nobody traces or counts
    operations.
    """
    if torch.compiler.is_compiling() or type(_get_current_dispatch_mode()).__name__ in WATCHERS:
        return False
    first = tensors[0]
    plain = all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype == first.dtype
        and x.numel()
        and not x.is_neg()
        for x in tensors
    )
    return plain and first.dtype in NAMES and _agree(shapes, tensors) and library() is not None


def multiplies(shapes: str, *tensors: Tensor) -> bool:
    """The same of a form that calls matrix products."""
    return takes(shapes, *tensors) and products() is not None


def _agree(shapes: str, tensors: Sequence[Tensor]) -> bool:
    sizes = {"1": 1}
    for pattern, x in zip(shapes.split(), tensors, strict=True):
        letters = pattern.lstrip("*")
        if x.dim() < len(letters) or (x.dim() > len(letters) and letters == pattern):
            return False
        for letter, size in zip(letters, x.shape[x.dim() - len(letters) :], strict=True):
            if sizes.setdefault(letter, size) != size:
                return False
    return True


def in_rows(x_BTHw: Tensor) -> tuple[Tensor, int]:
    """x and how far its tokens lie apart, where they lie evenly with `[H, w]` of each in one piece; else a contiguous
    copy.
    """
    B, T, H, w = x_BTHw.shape
    batch, token, head, one = x_BTHw.stride()
    even = (one == 1 or w == 1) and (head == w or H == 1) and (batch == T * token or B == 1) and token >= H * w
    return (x_BTHw, token) if even else (x_BTHw.contiguous(), H * w)


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """For a function that takes any number of contiguous tensors."""
    return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))


def lengths(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    """An array of sizes."""
    return (ctypes.c_long * len(numbers))(*numbers)


def call(
    name: str, tensors: Sequence[Tensor | ctypes.Array[Any] | None], sizes: list[int], work: int, *numbers: float
) -> None:
    """The function `name` of the first tensor's dtype, on tensors laid out as it expects them (None: a null pointer; or
    `pointers` and
    `lengths`), then `numbers`, then `sizes`, then the threads for so much work."""
    first = tensors[0]
    assert isinstance(first, Tensor)
    function = getattr(library(), f"{name}_{NAMES[first.dtype]}")
    threads = min(torch.get_num_threads(), 1 + work // WORK_A_THREAD)
    given = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in tensors]
    function(*given, *map(ctypes.c_double, numbers), *(ctypes.c_long(n) for n in (*sizes, threads)))
