"""Freed memory stays with the process, so that the next step finds it mapped."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from kernels.cpu.process import freed_memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="GNU's C library has the limits")

#: Frees a block of so many bytes with nothing after it, several times; prints the page faults per time.
STEPS = """
import ctypes, os, resource, sys
from kernels.cpu.library import library
library()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def step():
    block = c.malloc(int(sys.argv[1]))
    ctypes.memset(block, 1, int(sys.argv[1]))
    c.free(block)
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def _faults(size: int, **environment: str) -> float:
    kept = {k: v for k, v in os.environ.items() if k != freed_memory.VARIABLE and not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(size)],
        capture_output=True,
        text=True,
        check=True,
        env={**kept, **environment},
    )
    return float(done.stdout)


@needs_glibc
def test_a_block_that_is_freed_and_taken_again_costs_no_page_faults() -> None:
    size = 100 << 20
    assert _faults(size) < 10
    assert _faults(size, SUITE_KEEP_MEMORY="off") > 40  # it can be measured: pages may have up to 2 MB


@needs_glibc
def test_blocks_over_the_limit_are_returned_when_they_are_freed() -> None:
    assert _faults(freed_memory.LARGEST_BLOCK + (64 << 20)) > 100


@pytest.mark.parametrize(
    "environment",
    [
        {"SUITE_KEEP_MEMORY": "off"},
        {"MALLOC_TRIM_THRESHOLD_": "1"},
        {"MALLOC_MMAP_THRESHOLD_": "1"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"},
    ],
)
def test_limits_that_a_user_chose_are_kept(environment: dict[str, str]) -> None:
    assert not freed_memory.keep(environment)


@needs_glibc
def test_the_limits_are_set_with_gnu_s_library() -> None:
    assert freed_memory.keep({})
