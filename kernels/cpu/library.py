"""Loads the compiled C++ kernels, and builds them once per machine.

The library is in `$SUITE_CACHE/kernels`, by default `~/.cache/mixer-suite/kernels`, next to a file with its hash. A
library whose bytes have another hash is built again; one that has just been built is compared with PyTorch's own
operations in another process before it is loaded. `SUITE_COMPILED_KERNELS=off` disables it.

No vendor's matrix products are the fastest on every processor, so those that exist are compared at the first load.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from filelock import FileLock

from kernels.cpu import build
from kernels.cpu.build import UnavailableError
from kernels.cpu.process import freed_memory, trusted, waiting
from kernels.cpu.products import comparison
from kernels.cpu.products.blas import Products, candidates, torch_library
from kernels.cpu.sizes import SIZES, Sizes

log = logging.getLogger(__name__)
VARIABLE = "SUITE_PRODUCTS"  # names the matrix products, instead of the fastest
_in_use: dict[str, Products] = {}  # by the file of the library


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None after one warning per process with the reason. From the first call on, the process keeps
    the memory that it frees.
    """
    freed_memory.keep()
    try:
        return load(_built())
    except (UnavailableError, OSError, AttributeError, subprocess.SubprocessError) as error:
        log.warning("CPU kernels: %s; PyTorch runs instead of the C++ implementations", error)
        return None


def load(path: Path) -> ctypes.CDLL:
    """Loads a library.

    Args:
        path: of a library that can be trusted.

    Returns:
        The library, with matrix products and PyTorch's threads.

    Raises:
        UnavailableError: it was compiled with other sizes.
        OSError, AttributeError: it is none of ours.
    """
    found = ctypes.CDLL(str(path))
    check_sizes(found)
    use(found, chosen(found, path))
    found.use_bf16_product(bf16_product())
    found.use_threads(pool())
    waiting.measure(found)
    return found


def use(found: ctypes.CDLL, products: Products) -> None:
    """Lets a library call these products from now on; for comparisons within one process.

    Args:
        found: a loaded library.
        products: what its kernels multiply with.
    """
    products.use(found)
    _in_use[found._name] = products


def chosen(compiled: ctypes.CDLL, path: Path) -> Products:
    """The products that the kernels call in this process.

    Args:
        compiled: the kernels, loaded from `path`.
        path: its file, in a folder that nobody else can write to.

    Returns:
        Those that `SUITE_PRODUCTS` names; else those found fastest here, which are compared now if they never were.

    Raises:
        UnavailableError: the named ones do not exist here.
        OSError, AttributeError: no product agrees with PyTorch's, or the chosen library cannot be loaded.
    """
    named, found = os.environ.get(VARIABLE, "").lower(), candidates()
    if named:
        if named not in found:
            raise UnavailableError(f"{VARIABLE}={named} is not available here (allowed: {', '.join(found)})")
        return found[named]()
    how = Path(comparison.__file__).read_text("utf-8")  # another comparison may choose others
    key = sha256(f"{torch.__version__} {','.join(found)} {how}".encode()).hexdigest()[:8]
    file = path.with_name(f"products-{path.stem}-{key}.json")
    if trusted.fault(file):
        with FileLock(file.with_suffix(".lock")):  # other processes wait, and find the result
            if trusted.fault(file):
                trusted.store(file, json.dumps(comparison.fastest(compiled)))
    return found[json.loads(file.read_text("utf-8"))["chosen"]]()


def check_sizes(found: ctypes.CDLL, expected: Sizes = SIZES) -> None:
    """Raises UnavailableError if the library was compiled with other sizes: it would write beyond buffers."""
    found.size_of.argtypes, found.size_of.restype = (ctypes.c_char_p,), ctypes.c_long
    for name, size in expected.macros().items():
        compiled = found.size_of(name.encode())
        if compiled != size:
            raise UnavailableError(f"{found._name} was compiled with {name}={compiled}, not {size}")


def products() -> Products | None:
    """The fp32 and fp64 matrix products that the loaded library calls; None without a library."""
    return _in_use.get(found._name) if (found := library()) else None


@cache
def bf16_product() -> ctypes.c_void_p | None:
    """PyTorch's library's product of factors in bf16 whose sums are in fp32; or None, after one warning.

    It multiplies on the processor's units for bf16 (AMX, AVX-512 BF16) where there are any.
    """
    try:
        return ctypes.cast(torch_library().gemm_bf16bf16f32_, ctypes.c_void_p)
    except (OSError, AttributeError) as error:
        log.warning("CPU kernels: PyTorch exports no product in bf16 (%s); bf16 products run in PyTorch", error)
        return None


@cache
def pool() -> ctypes.c_void_p | None:
    """The function by which compiled code runs on the threads of PyTorch's OpenMP runtime; None where that is another
    runtime than GNU's: the kernels start threads for each call there.
    """
    try:
        runtime = next(Path(torch.__file__).with_name("lib").glob("libgomp*.so*"))
        return ctypes.cast(ctypes.CDLL(str(runtime)).GOMP_parallel, ctypes.c_void_p)
    except (StopIteration, OSError, AttributeError):
        return None


def _built() -> Path:
    if os.environ.get(build.SWITCH, "on").lower() in build.OFF:
        raise UnavailableError(f"{build.SWITCH} is off")
    compiler = build.compiler()
    target = trusted.folder() / f"kernels-{build.key(compiler)}.so"
    if trusted.fault(target):
        with FileLock(target.with_suffix(".lock"), timeout=2 * build.TIMEOUT_S):  # other processes wait, and find it
            _build_if_needed(compiler, target)
    return target


def _build_if_needed(compiler: str, target: Path) -> None:
    fault = trusted.fault(target)
    if not fault:
        return
    if target.exists():
        log.warning("CPU kernels: %s %s; it is built again", target, fault)
    log.warning("CPU kernels: compiling them once for this machine (about 20 s): %s", target)
    trusted.remove(target)
    build.build(compiler, target)
    _compare_with_pytorch(target)
    trusted.seal(target)


def _compare_with_pytorch(path: Path) -> None:
    """Raises UnavailableError unless a new library computes what PyTorch does, in a process that may crash."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "kernels.tools.self_test", str(path)],
        capture_output=True,
        text=True,
        timeout=build.TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": paths, "SUITE_COMPILED_KERNELS": "off"},
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines() or [f"exit code {done.returncode}"]
        raise UnavailableError(f"the compiled kernels differ from PyTorch's operations ({lines[-1]})")
