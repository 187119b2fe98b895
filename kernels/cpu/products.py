"""Which matrix products the compiled kernels call: those of PyTorch's MKL, of the OpenBLAS in SciPy's wheel, or the
suite's own (`blocked.cpp`).

No library is the fastest on every processor, so they are compared when the kernels are first loaded: each must agree
with PyTorch's product, and the feed-forward layer, most of a training step, is timed with each. The result is stored
next to the compiled library. `SUITE_PRODUCTS` names one and skips the comparison.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from filelock import FileLock
from torch import Tensor

from kernels.cpu import trusted
from kernels.cpu.build import UnavailableError
from kernels.cpu.sizes import SIZES

log = logging.getLogger(__name__)

VARIABLE = "SUITE_PRODUCTS"
#: What records and reports call them, by their value of the variable; the first available one is kept unless another
#: is faster by MARGIN, so that noise does not change the rounding of a machine's runs.
TITLES: Mapping[str, str] = {"mkl": "MKL", "openblas": "OpenBLAS", "suite": "the suite"}
MARGIN = 1.03
ROUNDS = 9
#: Width and hidden width of the timed feed-forward layers: those of the tasks' models.
LAYERS = ((128, 344), (64, 176))
ROWS = 1024
#: Largest difference from PyTorch's product in fp64, relative to the largest entry.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


@dataclass(frozen=True)
class Products:
    """Functions of BLAS for fp32 and fp64; None where the suite's own run."""

    name: str
    single: ctypes.c_void_p | None = None
    double: ctypes.c_void_p | None = None

    def use(self, library: ctypes.CDLL) -> None:
        """Lets a compiled library call these products, each on one thread.

        Args:
            library: of the kernels.
        """
        library.use_products(self.single, self.double, mkl_threads())


def torch_library() -> ctypes.CDLL:
    """PyTorch's library for CPUs; its builds for x86 contain and export Intel's MKL.

    Returns:
        The library.

    Raises:
        OSError: there is none.
    """
    found = next(Path(torch.__file__).with_name("lib").glob("libtorch_cpu.*"), None)
    if found is None:
        raise OSError("PyTorch has no libtorch_cpu")
    return ctypes.CDLL(str(found))


@cache
def mkl_threads() -> ctypes.c_void_p | None:
    """MKL's function that sets the number of threads of the calling thread's products; None without MKL."""
    with suppress(OSError, AttributeError):
        return ctypes.cast(torch_library().MKL_Set_Num_Threads_Local, ctypes.c_void_p)
    return None


@cache
def candidates() -> dict[str, Products]:
    """The products that exist here.

    Returns:
        By name, in the order of `TITLES`; at least the suite's own.
    """
    made = {"mkl": _mkl, "openblas": _openblas, "suite": lambda: Products("suite")}
    found = {}
    for name in TITLES:
        with suppress(OSError, AttributeError):
            found[name] = made[name]()
    return found


def _mkl() -> Products:
    library = torch_library()
    return Products("mkl", *(ctypes.cast(getattr(library, n), ctypes.c_void_p) for n in ("sgemm_", "dgemm_")))


def _openblas() -> Products:
    """Its number of threads is that of the process: one, as the kernels' own threads call it."""
    spec = find_spec("scipy")
    if spec is None or spec.origin is None:
        raise OSError("SciPy is not installed")
    file = next(Path(spec.origin).parents[1].glob("scipy.libs/libscipy_openblas-*"), None)
    if file is None:
        raise OSError("SciPy's wheel has no OpenBLAS")
    library = ctypes.CDLL(str(file))
    functions = (ctypes.cast(getattr(library, n), ctypes.c_void_p) for n in ("scipy_sgemm_", "scipy_dgemm_"))
    library.scipy_openblas_set_num_threads(1)
    return Products("openblas", *functions)


def chosen(library: ctypes.CDLL, path: Path) -> Products:
    """The products that the kernels call in this process.

    Args:
        library: the compiled kernels, loaded from `path`.
        path: its file, in a folder that nobody else can write to.

    Returns:
        Those that `SUITE_PRODUCTS` names; else those found fastest here, which are compared now if they never were.

    Raises:
        UnavailableError: the named ones do not exist here, or no product agrees with PyTorch's.
    """
    named, found = os.environ.get(VARIABLE, "").lower(), candidates()
    if named:
        if named not in found:
            raise UnavailableError(f"{VARIABLE}={named} is not available here (allowed: {', '.join(found)})")
        return found[named]
    key = sha256(f"{torch.__version__} {','.join(found)}".encode()).hexdigest()[:8]
    file = path.with_name(f"products-{path.stem}-{key}.json")
    if trusted.fault(file):
        with FileLock(file.with_suffix(".lock")):  # other processes wait, and find the result
            if trusted.fault(file):
                trusted.store(file, json.dumps(fastest(library)))
    return found[json.loads(file.read_text("utf-8"))["chosen"]]


def fastest(library: ctypes.CDLL) -> dict[str, object]:
    """Compares all products on this processor.

    Args:
        library: the compiled kernels.

    Returns:
        `chosen`, and `seconds` of the feed-forward layers with each that agrees with PyTorch's product.

    Raises:
        UnavailableError: none agrees.
    """
    sound = {}
    for name, products in candidates().items():
        products.use(library)
        if (error := difference(library)) <= 1:
            sound[name] = products
        else:
            log.warning("CPU kernels: products by %s are off by %.2g tolerances", TITLES[name], error)
    if not sound:
        raise UnavailableError("no matrix product agrees with PyTorch's")
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
    layers = [_feed_forward(library, *sizes) for sizes in LAYERS]
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
    parts = SIZES.weight_parts
    x, m, h, y, g, dx = (torch.ones(ROWS, D) for _ in range(6))
    gain, up, down = torch.ones(D), torch.full((2 * F, D), 0.01), torch.full((D, F), 0.01)
    scale, z = torch.empty(ROWS), torch.empty(ROWS, 2 * F)
    grads = [torch.empty(parts, *weight.shape) for weight in (gain, up, down)]

    def pointers(*tensors: Tensor) -> Iterator[ctypes.c_void_p]:
        return (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)

    sizes = [ctypes.c_long(n) for n in (ROWS, D, F, 1)]

    def step() -> None:
        library.feed_forward_float(*pointers(x, m, gain, up, down, h, scale, z, y), ctypes.c_double(1e-5), *sizes)
        library.feed_forward_backward_float(*pointers(h, gain, scale, up, down, z, g, dx, *grads), *sizes)

    return step
