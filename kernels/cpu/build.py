"""Compiling the C++ sources for this machine.

They need no headers of PyTorch and work on raw pointers, so only a C++ compiler is needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kernels.cpu.sizes import SIZES

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cpp")))
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
# -ffast-math for compiling only: at the link it would change the rounding of the whole process.
# Without its assumption that there is no NaN, because a run that diverges must show it; the macro still requests vector
# functions.
FLOATS = ("-ffast-math", "-fno-finite-math-only", "-D__FAST_MATH__")
COMPILE = ("-O3", "-march=native", "-mprefer-vector-width=512", *FLOATS, *SIZES.flags(), "-std=c++17", "-fPIC", "-c")
TIMEOUT_S = 300
SWITCH = "SUITE_COMPILED_KERNELS"
OFF = ("off", "0", "no", "false")  # its values


class UnavailableError(Exception):
    """Why there is no compiled library."""


def compiler() -> str:
    """The path of a C++ compiler: `$CXX`, else the first of g++, clang++ and c++. Raises UnavailableError."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["g++", "clang++", "c++"]:
        found = shutil.which(name)
        if found:
            return found
    raise UnavailableError(f"no C++ compiler ({named or 'g++, clang++, c++'} is not on the PATH)")


def key(compiler: str) -> str:
    """A hash of sources, flags, compiler and processor, which is part of it because of -march=native."""
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


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build(compiler: str, target: Path) -> None:
    """Compiles all sources into one library, moved into place by a rename: it is there whole or not at all. Raises
    UnavailableError.
    """
    flags = [f for f in COMPILE if not (f.startswith("-mprefer") and platform.machine() not in ("x86_64", "AMD64"))]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [f"{folder}/{source.stem}.o" for source in SOURCES]
        commands = [[compiler, *flags, str(source), "-o", made] for source, made in zip(SOURCES, objects, strict=True)]
        with ThreadPoolExecutor(_processors()) as pool:
            list(pool.map(_run, commands))
        _run([compiler, "-shared", *objects, "-o", f"{folder}/kernels.so"])
        os.chmod(f"{folder}/kernels.so", 0o700)  # whatever the umask: others may not write to it
        os.replace(f"{folder}/kernels.so", target)
