"""What tests of kernels share."""

from __future__ import annotations

import pytest

from kernels.cpu.library import library


@pytest.fixture(params=["compiled", "pytorch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test twice: with the compiled forms, and as on a machine without a compiler. Gives which."""
    if request.param == "pytorch":
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    elif library() is None:
        pytest.skip("no C++ compiler here")
    return str(request.param)
