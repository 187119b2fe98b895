"""Comparisons of the matrix products of training: those that the compiled kernels call, with the processor's limit of
multiply-adds and with PyTorch's product.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from kernels.cpu import limits
from kernels.cpu.library import library
from suite.bench.comparison import Comparison, Requirement
from suite.bench.timing import Workload

#: Rows of a batch, and inputs and outputs of the weights of a block, at `quick` scale.
SHAPES: Mapping[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "text": (4096, ((128, 384), (128, 128), (128, 688), (344, 128))),
    "images": (3136, ((96, 288), (96, 96), (96, 512), (256, 96))),
    "series": (9408, ((64, 192), (64, 64), (64, 352), (176, 64))),
}
LIMIT, PYTORCH = "multiply-add limit", "pytorch"
#: The smallest fraction of the limit on one thread.
OF_LIMIT = 0.92


def compiled_product(a_MK: Tensor, b_KN: Tensor, out_MN: Tensor) -> Callable[[], object] | None:
    """What writes `out = a b` by the compiled kernels; either factor may be a transpose. None where there are none."""
    found = library()
    if found is None:
        return None
    turned = [x.stride(-1) != 1 for x in (a_MK, b_KN)]
    pitches = [x.stride(1 if turn else 0) for x, turn in zip((a_MK, b_KN), turned, strict=True)]
    (M, K), N = a_MK.shape, b_KN.shape[1]
    sizes = M, N, K, pitches[0], int(turned[0]), pitches[1], int(turned[1]), N, 1
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (a_MK, b_KN, out_MN)]
    return partial(
        found.product_float, *pointers, *map(ctypes.c_double, (1.0, 0.0)), *(ctypes.c_long(size) for size in sizes)
    )


def products(rows: int, inputs: int, outputs: int) -> Mapping[str, Workload]:
    """The three products of a linear layer in a training step: outputs, gradients of inputs and of the weight."""
    x, w, g = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
    factors = [(x, w.T), (g, w), (g.T, x)]
    results = [torch.empty(a.shape[0], b.shape[1]) for a, b in factors]
    calls = [compiled_product(a, b, out) for (a, b), out in zip(factors, results, strict=True)]

    def ours() -> list[Tensor]:
        for call in calls:
            if call is not None:
                call()
        return results

    limit = limits.multiply_adds()
    found: dict[str, Workload] = {} if None in calls else {"ours": ours}
    found[PYTORCH if found else "ours"] = lambda: [a @ b for a, b in factors]
    return found if limit is None else {**found, LIMIT: limit[0]}


def product_comparisons(lengths: Sequence[int]) -> Iterator[Comparison]:
    """The products of each weight, at the rows of a batch, or at the given numbers of rows."""
    limit, one_thread = limits.multiply_adds(), torch.get_num_threads() == 1
    for name, (rows, weights) in SHAPES.items():
        for M in lengths or (rows,):
            for inputs, outputs in weights:
                work = 6 * M * inputs * outputs / limit[1] if limit else 0.0
                requirements = (
                    Requirement("mfu", LIMIT, None if lengths or not one_thread else OF_LIMIT, work),
                    Requirement("speed", PYTORCH),
                )
                title = f"products of {name}, {inputs} → {outputs}"
                yield Comparison(title, M, partial(products, M, inputs, outputs), requirements, "weights packed once")
