"""How long idle threads of GNU's OpenMP runtime wait in a loop before they sleep.

The runtime counts rounds of the loop, each one pause instruction, which takes 10 ns on one processor and 45 on another.
So the pause is measured when the kernels are first loaded on a machine, and later commands ask for the rounds that take
the same time everywhere. No other module of the kernels is needed: the runtime reads the number before PyTorch exists.
"""

from __future__ import annotations

import ctypes
import hashlib
from contextlib import suppress
from pathlib import Path

from kernels.cpu.process import trusted

#: Time of the loop. Threads that wake up cost some 50 µs; next to a busy process every wait in the loop is lost.
WAIT_NS = 64_000.0
#: Rounds where no pause has been measured: 56 µs on an AMD EPYC, 20 µs on an Intel Xeon.
UNMEASURED = 2000
FEWEST, MOST = 500, 20_000
#: Longest wait that records call brief.
BRIEF_NS = 100_000.0


def rounds() -> int:
    """How many rounds idle threads should wait.

    Returns:
        Those that take `WAIT_NS` here, between `FEWEST` and `MOST`; `UNMEASURED` before the first measurement.
    """
    pause = pause_ns()
    return max(FEWEST, min(MOST, round(WAIT_NS / pause))) if pause else UNMEASURED


def is_brief(waited: int) -> bool:
    """Whether so many rounds take at most a tenth of a millisecond.

    Args:
        waited: rounds.

    Returns:
        By the measured pause; without one, of the slowest known.
    """
    return waited * (pause_ns() or BRIEF_NS / 3000) <= BRIEF_NS


def pause_ns() -> float | None:
    """The time of one round on this processor.

    Returns:
        Nanoseconds; None where it was not measured.
    """
    try:
        found = float(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if 0.1 <= found <= 1000 else None


def measure(library: ctypes.CDLL) -> None:
    """Keeps the time of a round for later commands, where there is none yet.

    Args:
        library: the compiled kernels.
    """
    if pause_ns() is None:
        library.pause_ns.restype = ctypes.c_double
        with suppress(OSError):
            _file().write_text(f"{library.pause_ns():.3f}\n", "utf-8")


def _file() -> Path:
    """In the cache folder, by the processor's name: a home folder may be that of several machines."""
    folder = trusted.lasting_folder("kernels")
    if folder is None:
        raise OSError("no folder for caches")
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        name = next((line for line in file if line.startswith("model name")), "")
    return folder / f"pause-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
