"""Every Triton kernel compiles for the GPUs that the project names, within their limits and without spilled registers.

The documented table has every call on every target.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is there on Linux only")

from kernels.gpu.shared.launch import Target, recording
from kernels.tools import ahead_of_time

#: Most bytes per block, from the vendors' documentation.
SHARED = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
REGISTERS = {"sm_80": 255, "sm_90": 255, "sm_100": 255, "gfx942": 512}  # most per thread
#: The first call of every kernel.
FIRST = list({kernel.name: call for call, (kernel, _, _) in reversed(ahead_of_time.CALLS.items())}.values())
#: Each first call for every target, and the other calls for one.
COMPILED = [
    (call, target)
    for call in ahead_of_time.CALLS
    for target in ahead_of_time.TARGETS
    if call in FIRST or target == "sm_90"
]
GPU = Path(ahead_of_time.__file__).parents[1] / "gpu"
DOCUMENT = Path(__file__).parents[3] / "docs" / "kernels.md"


@pytest.mark.slow
@pytest.mark.parametrize(("call", "target"), COMPILED)
def test_a_kernel_fits_its_target(call: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for r in ahead_of_time.resources(call, target):
        assert r.stack == 0, f"{r.kernel} spills {r.stack} bytes"
        assert 0 < r.registers <= REGISTERS[target]
        assert r.shared <= SHARED[target], f"{r.kernel} takes {r.shared} bytes of shared memory"
        assert r.tensor_cores == r.products, f"{r.kernel} multiplies without tensor cores"


def test_the_registered_calls_start_every_kernel_function() -> None:
    written = {
        (path.stem, name)
        for path in GPU.glob("*.py")
        for name in re.findall(r"^@triton\.jit\ndef (\w+_kernel)\(", path.read_text("utf-8"), re.M)
    }
    started = set()
    for call in ahead_of_time.CALLS:
        with recording("sm_90") as launches:
            ahead_of_time.start(call)
        started |= {(launch.kernel.__module__.rpartition(".")[2], launch.kernel.__name__) for launch in launches}
    assert started == written
    assert len(written) >= 12


def test_spills_too_much_memory_and_products_without_tensor_cores_are_reported() -> None:
    fine = ahead_of_time.Resources("k", "gfx942", "M=64", 4, 100, 0, 65_536, True, True)
    assert fine.complaints() == []
    bad = ahead_of_time.Resources("k", "gfx942", "M=64", 4, 100, 8, 65_537, True, False)
    assert [c.split()[0] for c in bad.complaints()] == ["8", "65537", "products"]
    assert "**stack 8**" in ahead_of_time.table([bad])


def test_the_table_shows_the_start_of_a_kernel_that_takes_most() -> None:
    least, most = (ahead_of_time.Resources("k", "sm_90", "M=64", 4, 100, stack, 0, True, True) for stack in (0, 16))
    for rows in ([least, most], [most, least]):
        assert ahead_of_time.table(rows).count("**stack 16**") == 1


def test_the_documented_table_names_every_kernel() -> None:
    table = DOCUMENT.read_text("utf-8").partition(ahead_of_time.BEGIN)[2].partition(ahead_of_time.END)[0]
    for call in ahead_of_time.CALLS:
        rows = [line for line in table.splitlines() if line.startswith(f"| {call}: ")]
        assert len(rows) >= 2, (
            f"docs/kernels.md lacks {call}; run: python -m kernels.tools.ahead_of_time --write docs/kernels.md"
        )
