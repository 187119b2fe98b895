"""Runs the tests of `interpreted/` in their own process, because Triton chooses its interpreter when it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.registry import KERNELS

pytest.importorskip("triton", reason="Triton is there on Linux only")

ROOT, FOLDER = Path(__file__).parents[3], Path(__file__).parent / "interpreted"
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))


def passed(marks: str, *paths: Path) -> int:
    """How many tests passed; none may fail."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-m", marks, "--tb=short", *map(str, paths)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    counts = re.findall(r"(\d+) passed", done.stdout)
    return int(counts[-1]) if counts else 0  # pytest's own count is the last one; a count per kernel comes before it


@pytest.mark.slow
def test_a_short_call_of_each_kernel_is_right() -> None:
    assert passed("not slow", FOLDER) >= sum(len(kernel.calls) for kernel in KERNELS if kernel.triton)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_the_kernels_are_right(file: str) -> None:
    assert passed("slow", FOLDER / file) >= 10


@pytest.mark.slow
@pytest.mark.parametrize(("file", "least"), [("test_kernels.py", 90), ("test_mixers.py", 2), ("test_runs.py", 40)])
def test_what_make_test_gpu_runs_is_right_in_the_interpreter(file: str, least: int) -> None:
    """So that time on a GPU is not spent on errors of the tests themselves."""
    assert passed("gpu", ROOT / "tests" / "gpu" / file) >= least


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_make_test_gpu_fails_in_one_line_without_a_gpu() -> None:
    [line] = [line for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if "tests.gpu.require" in line]
    assert not line.strip().removeprefix("@").startswith("-"), "make would ignore the failure"
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.require"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "make test-gpu needs a GPU" in done.stderr


def test_other_commands_leave_out_what_needs_a_gpu() -> None:
    lines = re.findall(r"\$\(PYTEST\) -m \"(.*)\"", (ROOT / "Makefile").read_text("utf-8"))
    assert len(lines) == 2
    assert all("not gpu" in line for line in lines)
