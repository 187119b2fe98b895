"""The matrix products that exist on a machine: PyTorch's MKL, the OpenBLAS in SciPy's wheel, the suite's own."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

#: What records and reports call them, by their value of `SUITE_PRODUCTS`.
TITLES: Mapping[str, str] = {"mkl": "MKL", "openblas": "OpenBLAS", "suite": "the suite"}


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


def candidates() -> dict[str, Callable[[], Products]]:
    """The products that exist here. A library is loaded when its products are made, since OpenBLAS starts threads.

    Returns:
        By name, in the order of `TITLES`, at least the suite's own: makes the products, and raises OSError or
        AttributeError where the library is not what it should be.
    """
    found: dict[str, Callable[[], Products]] = {}
    with suppress(OSError):
        if hasattr(torch_library(), "sgemm_"):
            found["mkl"] = _mkl
    if _openblas_file() is not None:
        found["openblas"] = _openblas
    return {**found, "suite": lambda: Products("suite")}


def _mkl() -> Products:
    return Products("mkl", *_functions(torch_library(), "sgemm_", "dgemm_"))


def _openblas() -> Products:
    """Its number of threads is that of the process: one, as the kernels' own threads call it."""
    library = ctypes.CDLL(str(_openblas_file()))
    library.scipy_openblas_set_num_threads(1)
    return Products("openblas", *_functions(library, "scipy_sgemm_", "scipy_dgemm_"))


def _openblas_file() -> Path | None:
    spec = find_spec("scipy")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parents[1].glob("scipy.libs/libscipy_openblas-*"), None)


def _functions(library: ctypes.CDLL, *names: str) -> list[ctypes.c_void_p]:
    return [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in names]
