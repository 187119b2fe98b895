"""What tests of kernels share."""

from __future__ import annotations

import shutil

import pytest

from kernels.cpu.library import library


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
