"""The compiled library: when it is built, and that without a compiler PyTorch runs instead after a warning."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.cpu import build
from kernels.cpu import library as built
from kernels.cpu.call import takes
from kernels.cpu.process import trusted
from kernels.scan import diagonal_scan


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No library loaded and an empty cache."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    monkeypatch.delenv("SUITE_COMPILED_KERNELS", raising=False)
    built.library.cache_clear()
    yield tmp_path / "kernels"
    built.library.cache_clear()


def scanned() -> float:
    a, x = torch.full((1, 5, 2), 0.5), torch.ones(1, 5, 2)
    return float(diagonal_scan(a, x)[0, -1, 0])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here")
def test_it_is_built_and_announced_once_and_found_again(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert built.library() is not None
    [made] = fresh.glob("*.so")
    assert str(made) in caplog.text
    assert scanned() == 1.9375
    caplog.clear()
    built.library.cache_clear()
    before = made.stat().st_mtime_ns
    assert built.library() is not None
    assert made.stat().st_mtime_ns == before
    assert not caplog.text


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here")
def test_processes_that_start_together_build_it_once_and_all_use_it(fresh: Path) -> None:
    code = "from kernels.cpu.library import library; print(library() is not None)"
    environment = {**os.environ, "PYTHONPATH": str(Path(built.__file__).resolve().parents[2])}
    every = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=240) for process in every]
    assert [out.strip() for out, _ in said] == ["True"] * 3, said
    assert sum(err.count("compiling them once") for _, err in said) == 1
    assert len(list(fresh.glob("*.so"))) == 1


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
    monkeypatch.setattr(build, "SOURCES", (broken,))
    with caplog.at_level(logging.WARNING):
        assert built.library() is None
    assert "failed: " in caplog.text
    assert "broken.cpp" in caplog.text
    assert {path.suffix for path in fresh.iterdir()} <= {".lock"}


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


COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler here")
FAULTS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "one bit flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "empty": lambda path: path.write_bytes(b""),
    "writable by others": lambda path: path.chmod(0o777),
    "its hash is missing": lambda path: path.with_suffix(".sha256").unlink(),
    "its hash is a link": lambda path: linked(path.with_suffix(".sha256")),
    "a link": lambda path: linked(path),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.fixture
def built_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of a library, with its hash; nothing is compiled."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path))
    path = trusted.folder() / "kernels-0.so"
    path.write_bytes(bytes(range(256)) * 20)
    path.chmod(0o700)
    trusted.seal(path)
    assert trusted.fault(path) == ""
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_is_not_the_one_that_was_built_is_never_loaded(built_library: Path, fault: str) -> None:
    FAULTS[fault](built_library)
    assert trusted.fault(built_library) != ""


@pytest.mark.parametrize("how", ["writable by others", "a link"])
def test_a_folder_that_others_control_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    planted = tmp_path / "cache" / "kernels"
    planted.mkdir(parents=True)
    if how == "a link":
        linked(planted)
    else:
        planted.chmod(0o777)
    used = trusted.folder()
    assert used != planted
    assert used.stat().st_mode & 0o077 == 0


def test_a_library_of_another_user_is_not_used(built_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = built_library.lstat().st_uid
    monkeypatch.setattr("kernels.cpu.process.trusted.os.getuid", lambda: here + 1)
    if here == 0:  # root's files are trusted by everybody: pretend that the file is somebody's
        monkeypatch.setattr("kernels.cpu.process.trusted._ROOT", -1)
    assert trusted.fault(built_library) != ""


@pytest.mark.slow
@COMPILER
@pytest.mark.parametrize("fault", ["one bit flipped"])
def test_a_damaged_library_is_reported_and_built_again(
    fresh: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    assert built.library() is not None
    [path] = fresh.glob("*.so")
    intact = path.read_bytes()
    copy = path.with_suffix(".damaged")  # the loaded file itself is in use
    copy.write_bytes(intact)
    copy.chmod(0o700)
    copy.replace(path)
    FAULTS[fault](path)
    built.library.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert built.library() is not None
    assert "built again" in caplog.text
    assert trusted.fault(path) == ""
    assert scanned() == 1.9375


@pytest.mark.slow
@COMPILER
def test_a_library_that_computes_something_else_is_refused(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "sources"
    shutil.copytree(Path(build.__file__).parent, wrong)
    norms = wrong / "norms.h"
    text = norms.read_text("utf-8")
    assert "std::sqrt" in text
    norms.write_text(text.replace("std::sqrt(", "S(1.001) * std::sqrt(", 1), "utf-8")
    monkeypatch.setattr(build, "SOURCES", tuple(sorted(wrong.glob("*.cpp"))))
    with caplog.at_level(logging.WARNING):
        assert built.library() is None
    assert "differ from PyTorch's operations" in caplog.text
    assert scanned() == 1.9375


def test_a_library_without_its_functions_is_one_warning(
    built_library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import ctypes.util

    other = ctypes.util.find_library("m")
    monkeypatch.setattr(built, "_built", lambda: other)
    built.library.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert built.library() is None
    built.library.cache_clear()
    assert caplog.text.count("PyTorch runs instead") == 1
