"""Compares the matrix products that exist on a machine: each must agree with PyTorch's product, and feed-forward and
attention layers, most of a training step, are timed with each. Feed-forward layers alone would choose wrongly: products
that are 4 % faster there made whole steps up to 7 % slower, since those of attention are small.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

import torch
from torch import Tensor

from kernels.cpu.products.blas import TITLES, Products, candidates

log = logging.getLogger(__name__)

#: The first available product is kept unless another is faster by this factor, so that noise does not change the
#: rounding of a machine's runs.
MARGIN = 1.03
ROUNDS = 9
#: Width, hidden width and tokens of a sequence of the timed layers: those of the tasks' models.
LAYERS = ((128, 344, 256), (64, 176, 42))
HEADS = 4
ROWS = 1024
#: Largest difference from PyTorch's product in fp64, relative to the largest entry.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def fastest(library: ctypes.CDLL) -> dict[str, object]:
    """Compares all products on this processor.

    Args:
        library: the compiled kernels.

    Returns:
        `chosen`, and `seconds` of the layers with each that agrees with PyTorch's product.

    Raises:
        OSError: none agrees.
    """
    sound = {}
    for name, make in candidates().items():
        try:
            products = make()
        except (OSError, AttributeError) as error:
            log.warning("CPU kernels: products by %s can't be loaded: %s", TITLES[name], error)
            continue
        products.use(library)
        if (off := difference(library)) <= 1:
            sound[name] = products
        else:
            log.warning("CPU kernels: products by %s are off by %.2g tolerances", TITLES[name], off)
    if not sound:
        raise OSError("no matrix product agrees with PyTorch's")
    seconds = _timed(library, sound)
    best, first = min(seconds, key=lambda name: seconds[name]), next(iter(seconds))
    return {"chosen": best if seconds[first] >= MARGIN * seconds[best] else first, "seconds": seconds}


def difference(library: ctypes.CDLL) -> float:
    """How far the products that a library calls are from PyTorch's in fp64.

    Args:
        library: the compiled kernels.

    Returns:
        The largest difference of products of odd shapes, in units of `TOLERANCE`.
    """
    worst, random = 0.0, torch.Generator().manual_seed(0)
    for dtype, ending in ((torch.float32, "float"), (torch.float64, "double")):
        for m, n, k in ((1, 1, 1), (37, 49, 400), (80, 133, 65)):
            a, b, out = (
                torch.randn(size, dtype=torch.float64, generator=random).to(dtype) for size in ((m, k), (k, n), (m, n))
            )
            wanted = 0.5 * (a.double() @ b.double()) + 2 * out.double()
            for turned in range(8):
                got = out.clone()
                _multiply(library, ending, (a.T if turned & 1 else a, b.T if turned & 2 else b, got), turned)
                error = (got.double() - wanted).abs().max() / wanted.abs().max()
                worst = max(worst, float(error) / TOLERANCE[dtype])
    return worst


def _multiply(library: ctypes.CDLL, ending: str, tensors: tuple[Tensor, Tensor, Tensor], turned: int) -> None:
    """got = ½ a b + 2 got. Bits of `turned`: a is stored as its transpose, b too, b is packed first."""
    a, b, got = (x.contiguous() for x in tensors)
    m, n = got.shape
    sizes = (m, n, a.numel() // m, a.shape[1], turned & 1, b.shape[1], turned >> 1 & 1, n, turned >> 2)
    getattr(library, f"product_{ending}")(
        *(ctypes.c_void_p(x.data_ptr()) for x in (a, b, got)),
        *map(ctypes.c_double, (0.5, 2.0)),
        *map(ctypes.c_long, sizes),
    )


def _timed(library: ctypes.CDLL, sound: Mapping[str, Products]) -> dict[str, float]:
    """Seconds of one thread, medians of interleaved rounds, summed over the layers."""
    layers = [_feed_forward(library, D, F) for D, F, _ in LAYERS]
    layers += [_attention(library, D // HEADS, T) for D, _, T in LAYERS]
    taken: dict[str, list[float]] = {name: [] for name in sound}
    for round_ in range(ROUNDS + 1):  # the first one warms up
        for name, products in sound.items():
            products.use(library)
            began = time.thread_time()
            for layer in layers:
                layer()
            if round_:
                taken[name].append(time.thread_time() - began)
    return {name: median(times) for name, times in taken.items()}


def _feed_forward(library: ctypes.CDLL, D: int, F: int) -> Callable[[], None]:
    """A feed-forward layer of `swiglu.cpp`, forward and backward, on ones."""
    x, m, h, y, g, dx = (torch.ones(ROWS, D) for _ in range(6))
    gain, up, down = torch.ones(D), torch.full((2 * F, D), 0.01), torch.full((D, F), 0.01)
    scale, z = torch.empty(ROWS), torch.empty(ROWS, 2 * F)
    grads = [torch.empty_like(weight) for weight in (gain, up, down)]

    sizes = [ctypes.c_long(n) for n in (ROWS, D, F, 1)]

    def step() -> None:
        library.feed_forward_float(*_pointers(x, m, gain, up, down, h, scale, z, y), ctypes.c_double(1e-5), *sizes)
        library.feed_forward_backward_float(*_pointers(h, gain, scale, up, down, z, g, dx, *grads), *sizes)

    return step


def _attention(library: ctypes.CDLL, width: int, tokens: int) -> Callable[[], None]:
    """The causal read of `attention.cpp`, forward and backward, on ones."""
    sequences = ROWS // tokens
    q, k, v, out, g, dq, dk, dv = (torch.ones(sequences, tokens, HEADS, width) for _ in range(8))
    lse, no = torch.empty(sequences, HEADS, tokens), [None] * 3
    pitches = [HEADS * width] * 3
    sizes = [ctypes.c_long(n) for n in (sequences, tokens, tokens, HEADS, width, width, 1, 0, *pitches, 1)]
    scale = ctypes.c_double(width**-0.5)

    def step() -> None:
        library.attention_float(*_pointers(q, k, v), *no, *_pointers(out, lse), scale, *sizes)
        library.attention_backward_float(
            *_pointers(q, k, v), *no, *_pointers(out, lse, g, dq, dk, dv), None, scale, *sizes
        )

    return step


def _pointers(*tensors: Tensor) -> Iterator[ctypes.c_void_p]:
    return (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
