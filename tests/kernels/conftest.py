"""What tests of kernels share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from kernels.cpu.library import library


@pytest.fixture(autouse=True)
def _fresh_memory_holds_no_number() -> Iterator[None]:
    """What a kernel leaves unwritten, or reads before it writes, is not a number."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["compiled", "pytorch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test twice: with the compiled forms, and as on a machine without a compiler. Gives which."""
    if request.param == "pytorch":
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    elif not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler here")
    else:
        assert library() is not None, "there is a C++ compiler, and the kernels do not compile"
    return str(request.param)
