"""Calls into the compiled library: which calls it takes, and how tensors are passed to it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from kernels.cpu.library import library as library
from kernels.cpu.library import products

WORK_PER_THREAD = 1 << 16
WATCHERS = ("_FlopCounterMode", "ProxyTorchDispatchMode")  # they see PyTorch's own operations only
NAMES = {torch.float32: "float", torch.float64: "double"}
#: Endings of C++ functions by the dtype of their first tensor.
ENDINGS = {**NAMES, torch.bfloat16: "bf16"}


_refuses_all = False


@contextmanager
def pytorch_only() -> Iterator[None]:
    """Within the block the compiled library takes no call, so that PyTorch's own operations run."""
    global _refuses_all
    before, _refuses_all = _refuses_all, True
    try:
        yield
    finally:
        _refuses_all = before


_recorded: set[str] | None = None


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Collects the names of the C++ functions that are called within the block, without their dtype."""
    global _recorded
    before, _recorded = _recorded, set()
    try:
        yield _recorded
    finally:
        _recorded = before


def record(name: str) -> None:
    """A C++ function is called."""
    if _recorded is not None:
        _recorded.add(name)


def watched_or_refused() -> bool:
    """Whether the compiled library takes no call at present: operations are traced or counted, or `pytorch_only`."""
    return _refuses_all or torch.compiler.is_compiling() or type(_get_current_dispatch_mode()).__name__ in WATCHERS


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is an ordinary one on the CPU, with elements."""
    ordinary = type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu"
    return ordinary and x.numel() > 0 and not x.is_neg()


def takes(shapes: str, *tensors: Tensor) -> bool:
    """Whether the compiled library takes a call with these tensors.

    It takes ordinary CPU tensors of one dtype, fp32 or fp64, none of them empty, whose shapes agree with `shapes`,
    while operations are neither traced nor counted. It does not check shapes itself. In "*D D" a letter is the same
    size everywhere, 1 is 1, and * is any number of dimensions.
    """
    first = tensors[0]
    one_dtype = first.dtype in NAMES and all(x.dtype == first.dtype for x in tensors)
    return one_dtype and takes_mixed(shapes, *tensors)


def takes_mixed(shapes: str, *tensors: Tensor) -> bool:
    """The same for tensors whose dtypes the caller has checked."""
    return not watched_or_refused() and ordinary(shapes, *tensors) and available()


def available() -> bool:
    """Whether there is a compiled library."""
    return library() is not None


def ordinary(shapes: str, *tensors: Tensor) -> bool:
    """Whether these are plain CPU tensors whose shapes agree with `shapes`."""
    return all(map(is_plain, tensors)) and _agree(shapes, tensors)


def multiplies(shapes: str, *tensors: Tensor) -> bool:
    """The same for an implementation that calls matrix products."""
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
    """x and the distance between its tokens, if that is constant and `[H, w]` of each is contiguous; else a copy."""
    B, T, H, w = x_BTHw.shape
    batch, token, head, one = x_BTHw.stride()
    even = (one == 1 or w == 1) and (head == w or H == 1) and (batch == T * token or B == 1) and token >= H * w
    return (x_BTHw, token) if even else (x_BTHw.contiguous(), H * w)


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of contiguous tensors, for a function that takes any number of them."""
    return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))


def lengths(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    """An array of sizes."""
    return (ctypes.c_long * len(numbers))(*numbers)


def call(
    name: str, tensors: Sequence[Tensor | ctypes.Array[Any] | None], sizes: list[int], work: int, *numbers: float
) -> None:
    """Calls the C++ function `name` for the dtype of the first tensor.

    Its arguments are `tensors` in the layout that it expects (None becomes a null pointer; `pointers` and `lengths` are
    passed on), then `numbers`, then `sizes`, then the number of threads for so much `work`.
    """
    record(name)
    first = tensors[0]
    assert isinstance(first, Tensor)
    function = getattr(library(), f"{name}_{ENDINGS[first.dtype]}")
    # all or one: a pool whose teams change their size would start and end threads
    threads = torch.get_num_threads() if work >= 2 * WORK_PER_THREAD else 1
    given = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in tensors]
    function(*given, *map(ctypes.c_double, numbers), *(ctypes.c_long(n) for n in (*sizes, threads)))
