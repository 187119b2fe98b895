"""The compiled library: when it is built, and that without a compiler PyTorch runs instead after a warning."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.cpu import library as built
from kernels.cpu.call import takes
from kernels.scan import diagonal_scan


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No library loaded and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SUITE_COMPILED_KERNELS", raising=False)
    built.library.cache_clear()
    yield tmp_path / "mixer-suite"
    built.library.cache_clear()


def scanned() -> float:
    a, x = torch.full((1, 5, 2), 0.5), torch.ones(1, 5, 2)
    return float(diagonal_scan(a, x)[0, -1, 0])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here")
def test_it_is_built_and_announced_once_and_found_again(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert built.library() is not None
    [made] = fresh.iterdir()
    assert str(made) in caplog.text
    assert scanned() == 1.9375
    caplog.clear()
    built.library.cache_clear()
    before = made.stat().st_mtime_ns
    assert built.library() is not None
    assert made.stat().st_mtime_ns == before
    assert not caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CXX", "no-such-compiler", "no C++ compiler (no-such-compiler is not on the PATH)"),
        ("CXX", "false", "returned non-zero exit status"),
        ("SUITE_COMPILED_KERNELS", "off", "SUITE_COMPILED_KERNELS is off"),
    ],
)
def test_without_it_pytorch_runs_after_one_warning_with_the_reason(
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        assert [scanned(), scanned()] == [1.9375, 1.9375]
    assert caplog.text.count("PyTorch runs instead") == 1
    assert reason in caplog.text


def test_a_source_that_does_not_compile_leaves_no_file(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is not C++\n")
    monkeypatch.setattr(built, "SOURCES", (broken,))
    with caplog.at_level(logging.WARNING):
        assert built.library() is None
    assert "failed: " in caplog.text
    assert "broken.cpp" in caplog.text
    assert not list(fresh.iterdir())


def test_it_refuses_tensors_that_raw_pointers_would_read_wrongly() -> None:
    x = torch.ones(1, 3, 2)
    refused: list[tuple[str, tuple[Tensor, ...]]] = [
        ("ABC ABC", (x.half(), x.half())),
        ("ABC ABC", (x, x.double())),
        ("ABC ABC", (x.to("meta"), x.to("meta"))),
        ("ABC ABC", (x, x[:, :1])),
        ("AB", (x,)),
        ("*D D", (x, x[0, 0, :1])),
        ("ABC AB1", (x, x)),
        ("ABC", (x[:0],)),
        ("ABC", (torch._neg_view(x),)),
    ]
    assert [case for case in refused if takes(*case[:1], *case[1])] == []
    if library_is_there():
        assert takes("ABC AB1 *C C", x, x[..., :1], x, x[0, 0])
        with FlopCounterMode(display=False):
            assert not takes("ABC", x)


def library_is_there() -> bool:
    return built.library() is not None
