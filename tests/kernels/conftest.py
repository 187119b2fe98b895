"""Fixtures of all tests of kernels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from kernels.cpu.library import library


@pytest.fixture(autouse=True)
def _new_memory_is_nan() -> Iterator[None]:
    """Memory that a kernel leaves unwritten, or reads before it writes, is NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["c++", "pytorch"])
def cpp_or_pytorch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test twice: with the C++ implementations, and as on a machine without a compiler."""
    if request.param == "pytorch":
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    else:
        _require_library()
    return str(request.param)


@pytest.fixture
def compiled_kernels() -> None:
    """Skips a test where there is no compiler. A library that does not compile, or is refused, is a failure."""
    _require_library()


def _require_library() -> None:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler here")
    assert library() is not None, "there is a C++ compiler, but the kernels do not compile or differ from PyTorch's"
