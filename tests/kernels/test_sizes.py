"""Buffer sizes have one source: C++ gets them as macros from the Python table, and a library with others is refused."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kernels.cpu import build, library
from kernels.cpu.sizes import SIZES, Sizes

FOLDER = Path(build.__file__).parent
SOURCES = [*build.SOURCES, *build.HEADERS]
COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
#: Constants that Python has no part in: tiles and loops within one source.
ONLY_IN_CPP = {
    ("attention.cpp", "ROWS"),
    ("attention.cpp", "KEYS"),
    ("attention.cpp", "NEAR"),
    ("blocked.cpp", "COLUMNS"),
    ("blocked.cpp", "DEPTH"),
    ("blocked.cpp", "NEAR"),
    ("channel_chunks.h", "BLOCK"),
    ("corrections.h", "ROWS"),
    ("decoding.cpp", "BLOCK"),
    ("delta.cpp", "ROWS"),
    ("limits.cpp", "STEPS"),
    ("limits.cpp", "SUMS"),
    ("limits.cpp", "WIDTH"),
    ("memory_rows.h", "ROWS_AT_ONCE"),
    ("low_rank.h", "QUAD"),
    ("normed_projection.cpp", "GROUP"),
    ("parts.h", "BLOCK"),
    ("parts.h", "WEIGHT_PARTS"),
    ("parts.h", "WORTH_A_THREAD"),
    ("projection.cpp", "BLOCK_ROWS"),
    ("projection.cpp", "FEW_ROWS"),
    ("projection.cpp", "NUMBERS"),
    ("projection_bf16.cpp", "NUMBERS"),
    ("registers.h", "REGISTER_BYTES"),
    ("rotation.h", "PAIRED_BYTES"),
    ("selective.cpp", "GROUP"),
    ("selective_layer_step.cpp", "BLOCK"),
    ("swiglu.cpp", "NUMBERS"),
    ("swiglu_bf16.cpp", "NUMBERS"),
    ("vectors.h", "LANES"),
}


def literals(text: str) -> set[str]:
    """Names of the integer constants whose value is written as a number."""
    found: set[str] = set()
    for declaration in re.findall(r"^\s*(?:static |inline )*constexpr (?:long|int) ([^;]+);", text, re.M):
        found |= set(re.findall(r"(\w+) = \d", declaration))
    return found | set(re.findall(r"^\s*#\s*define\s+(\w+)\s+\d", text, re.M))


def compiled(folder: Path, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Builds the source that reports the sizes into `folder`/sizes.so."""
    assert COMPILER is not None
    command = [COMPILER, *flags, "-shared", "-fPIC", str(FOLDER / "sizes.cpp"), "-o", str(folder / "sizes.so")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def loaded(folder: Path, sizes: Sizes) -> ctypes.CDLL:
    assert compiled(folder, sizes.flags()).returncode == 0
    return ctypes.CDLL(str(folder / "sizes.so"))


def test_no_shared_size_is_written_as_a_number_in_cpp() -> None:
    written = {(path.name, name) for path in SOURCES for name in literals(path.read_text("utf-8"))}
    assert written == ONLY_IN_CPP


def test_a_number_written_in_cpp_would_be_found() -> None:
    assert literals("constexpr long W = 64;  // a width\n  static constexpr int A = B, C = 1 << 4;") == {"W", "C"}
    assert literals("#define CHUNK 64\nconstexpr long CHUNK = LINEAR_CHUNK;") == {"CHUNK"}


@pytest.mark.parametrize("name", SIZES.macros())
def test_every_size_is_a_constant_that_some_source_uses(name: str) -> None:
    constant = name.removeprefix("SUITE_")
    assert f"constexpr long {constant} = {name};" in (FOLDER / "sizes.h").read_text("utf-8")
    others = [path for path in SOURCES if path.stem != "sizes"]
    assert any(re.search(rf"\b{constant}\b", path.read_text("utf-8")) for path in others)


@needs_compiler
def test_the_library_that_the_kernels_call_has_the_sizes_of_the_table() -> None:
    found = library.library()
    assert found is not None
    assert {name: found.size_of(name.encode()) for name in SIZES.macros()} == SIZES.macros()
    assert found.size_of(b"SUITE_OTHER") == -1


@needs_compiler
@pytest.mark.parametrize("name", [name.removeprefix("SUITE_").lower() for name in SIZES.macros()])
def test_a_library_with_another_size_is_refused(name: str, tmp_path: Path) -> None:
    other = replace(SIZES, **{name: getattr(SIZES, name) + 1})
    found = loaded(tmp_path, other)
    library.check_sizes(found, other)
    with pytest.raises(build.UnavailableError, match=f"SUITE_{name.upper()}={getattr(other, name)}, not "):
        library.check_sizes(found)


@needs_compiler
def test_sources_do_not_compile_without_a_size(tmp_path: Path) -> None:
    done = compiled(tmp_path, SIZES.flags()[1:])
    assert done.returncode != 0
    assert "kernels/cpu/sizes.py" in done.stderr


@needs_compiler
def test_sizes_are_part_of_the_name_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMPILER is not None
    before = build.key(COMPILER)
    other = replace(SIZES, scan_chunk=SIZES.scan_chunk + 1).flags()
    monkeypatch.setattr(build, "COMPILE", (*(flag for flag in build.COMPILE if flag not in SIZES.flags()), *other))
    assert build.key(COMPILER) != before
