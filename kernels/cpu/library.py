"""Builds the C++ sources once per machine and loads them.

They need no headers of PyTorch and work on raw pointers, so only a C++ compiler is needed. The library is named by a
hash of sources, flags, compiler and processor, and moved into place by a rename, so any number of processes may build
it at the same time. `SUITE_COMPILED_KERNELS=off` disables it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from kernels.cpu.sizes import SIZES, Sizes

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cpp")))
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
# -ffast-math for compiling only: at the link it would change the rounding of the whole process.
# Without its assumption that there is no NaN, because a run that diverges must show it; the macro still requests vector
# functions.
FLOATS = ("-ffast-math", "-fno-finite-math-only", "-D__FAST_MATH__")
COMPILE = ("-O3", "-march=native", "-mprefer-vector-width=512", *FLOATS, *SIZES.flags(), "-std=c++17", "-fPIC", "-c")
TIMEOUT_S = 300

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """Why there is no compiled library."""


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None after one warning per process with the reason."""
    try:
        found = ctypes.CDLL(str(_built()))
        check_sizes(found)
        found.use_products(*(products() or (None, None, None)))
        return found
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        log.warning("CPU kernels: %s; PyTorch runs instead of the C++ implementations", error)
        return None


def check_sizes(found: ctypes.CDLL, expected: Sizes = SIZES) -> None:
    """Raises UnavailableError if the library was compiled with other sizes: it would write beyond buffers."""
    found.size_of.argtypes, found.size_of.restype = (ctypes.c_char_p,), ctypes.c_long
    for name, size in expected.macros().items():
        compiled = found.size_of(name.encode())
        if compiled != size:
            raise UnavailableError(f"{found._name} was compiled with {name}={compiled}, not {size}")


@cache
def products() -> tuple[ctypes.c_void_p, ...] | None:
    """The fp32 and fp64 matrix products of PyTorch's own library, and the function that sets their threads; or None.

    PyTorch's builds for x86 contain Intel's MKL and export them. For others the kernels that multiply run in PyTorch.
    """
    folder = Path(torch.__file__).with_name("lib")
    try:
        library = ctypes.CDLL(str(next(folder.glob("libtorch_cpu.*"))))
        names = ("sgemm_", "dgemm_", "MKL_Set_Num_Threads_Local")
        return tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in names)
    except (StopIteration, OSError, AttributeError) as error:
        log.warning(
            "CPU kernels: PyTorch exports no matrix products (%s); kernels that need them run in PyTorch", error
        )
        return None


def _built() -> Path:
    if os.environ.get("SUITE_COMPILED_KERNELS", "on").lower() in ("off", "0", "no", "false"):
        raise UnavailableError("SUITE_COMPILED_KERNELS is off")
    compiler = _compiler()
    target = _folder() / f"kernels-{_key(compiler)}.so"
    if not target.exists():
        log.warning("CPU kernels: compiling them once for this machine (about 10 s): %s", target)
        _build(compiler, target)
    return target


def _compiler() -> str:
    named = os.environ.get("CXX")
    for name in [named] if named else ["g++", "clang++", "c++"]:
        found = shutil.which(name)
        if found:
            return found
    raise UnavailableError(f"no C++ compiler ({named or 'g++, clang++, c++'} is not on the PATH)")


def _folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(root) if root else Path.home() / ".cache") / "mixer-suite"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # no home folder, or one that can't be written
        folder = Path(tempfile.gettempdir()) / f"mixer-suite-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise UnavailableError(f"no folder to build in ({error})") from None
    return folder


def _key(compiler: str) -> str:
    """The processor is part of it, because of -march=native."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    ).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    processor = sorted(
        {line for line in lines if line.startswith(("model name", "flags", "Features"))} or {platform.processor()}
    )
    source = [path.read_text("utf-8") for path in (*SOURCES, *HEADERS)]
    return hashlib.sha256("\n".join([*source, *COMPILE, version, *processor]).encode()).hexdigest()[:16]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        lines = done.stderr.splitlines() or ["no message"]
        raise UnavailableError(f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[-1])}")


def _build(compiler: str, target: Path) -> None:
    flags = [f for f in COMPILE if not (f.startswith("-mprefer") and platform.machine() not in ("x86_64", "AMD64"))]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [f"{folder}/{source.stem}.o" for source in SOURCES]
        commands = [[compiler, *flags, str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        _run([compiler, "-shared", *objects, "-o", f"{folder}/kernels.so"])
        os.replace(f"{folder}/kernels.so", target)
