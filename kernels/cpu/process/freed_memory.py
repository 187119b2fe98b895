"""Memory that a training step frees stays with the process, where the C library is GNU's.

By default that library maps every block over 32 MB from the operating system each time, and returns the free end of its
memory. The next step asks for the same memory again, and the system clears it page by page: up to a tenth of a step.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

VARIABLE = "SUITE_KEEP_MEMORY"
OFF = ("off", "0", "no", "false")  # its values
#: Free bytes at the end of the memory that are kept, at most.
KEPT = 1 << 30
#: Larger blocks are mapped one by one, and returned when they are freed.
LARGEST_BLOCK = 1 << 28
#: Parameters of `mallopt`, by their names in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep(environment: Mapping[str, str] = os.environ) -> bool:
    """Sets both limits for this process.

    Args:
        environment: its variables. Nothing is set where `SUITE_KEEP_MEMORY` is off, or where the user has set the
            library's own (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`).

    Returns:
        Whether they are set; False too with another C library.
    """
    chosen = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if environment.get(VARIABLE, "on").lower() in OFF or any(name in environment for name in chosen):
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    try:
        process = ctypes.CDLL(None)
        process.gnu_get_libc_version  # noqa: B018  AttributeError: another library
        mallopt = process.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT)) and bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK))
