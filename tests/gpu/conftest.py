"""Where the tests run: on a GPU, or, to check that they run at all, on CPU tensors in Triton's interpreter.

At the end each Triton kernel is listed with the number of its tests that passed and failed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kernels import implementations
from tests.gpu.place import INTERPRETED

_counts: Counter[tuple[str, str]] = Counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU; the CPU in Triton's interpreter."""
    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here (make test-gpu fails then; TRITON_INTERPRET=1 runs these tests without one)")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def _triton_is_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUITE_TRITON_KERNELS", os.environ.get("SUITE_TRITON_KERNELS", "on"))
    implementations.forget()
    yield
    implementations.forget()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, kernel in report.user_properties:
        if name == "kernel" and (report.when == "call" or report.failed):
            _counts[str(kernel), report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    names = sorted({kernel for kernel, _ in _counts})
    if not names:
        return
    kind = "the interpreter" if INTERPRETED else implementations.gpu_kind(torch.device("cuda"))
    terminalreporter.write_sep("-", f"Triton kernels on {kind}")
    for name in names:
        passed, failed = _counts[name, "passed"], _counts[name, "failed"]
        terminalreporter.write_line(f"{name:<16} {passed} passed, {failed} failed")
    good = [name for name in names if not _counts[name, "failed"]]
    if good and not INTERPRETED:
        terminalreporter.write_line(f"candidates for kernels.implementations.PASSED on {kind}: {', '.join(good)}")
