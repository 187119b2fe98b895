"""The same call gives the same bits: on any number of threads, again and again; and Triton kernels add in one order.

`test_every_kernel.py` compares numbers of threads; `interpreted/` and `on_gpu/` repeat Triton kernels.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from kernels.calls import Call
from kernels.registry import Kernel
from tests.kernels.every_kernel import cases, with_gradients

GPU = Path(__file__).parents[2] / "kernels" / "gpu"
REPEATS = 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize(("kernel", "call"), cases(lambda kernel: bool(kernel.cpp)))
def test_repeating_a_compiled_call_on_three_threads_changes_no_bit(
    kernel: Kernel, call: Call, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.cpu.call.WORK_PER_THREAD", 1)
    tensors, before = call.draw(torch.float32, B=3, T=150, E=130, D=40), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            first, *others = [with_gradients(kernel, call, tensors) for _ in range(REPEATS)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for results in others for one, other in zip(first, results, strict=True))


def atomics(source: str) -> list[str]:
    """The atomic operations that a module names."""
    return [
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr.startswith("atomic_")
    ]


def test_no_triton_kernel_adds_atomically() -> None:
    """Atomic additions happen in changing order. A kernel that needs one has to be named in docs/determinism.md."""
    assert atomics("tl.atomic_add(p, x)") == ["atomic_add"]
    sources = {path: path.read_text("utf-8") for path in GPU.rglob("*.py")}
    assert len(sources) > 10
    assert {path.name: atomics(source) for path, source in sources.items() if atomics(source)} == {}


def test_tiles_are_not_chosen_by_timing_where_pytorch_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = pytest.importorskip("kernels.gpu.shared.launch")
    candidates = [launch.Config.of(4, 2, ROWS=16), launch.Config.of(8, 2, ROWS=32)]
    times = iter([2.0, 1.0])
    monkeypatch.setattr(launch, "interpreted", lambda: False)
    monkeypatch.setattr(launch, "_milliseconds", lambda run: next(times))
    monkeypatch.setattr(launch, "_chosen", {})
    assert torch.are_deterministic_algorithms_enabled()  # in all tests of kernels
    assert launch.tuned(("call",), candidates, lambda config: None) is candidates[0]
    torch.use_deterministic_algorithms(False)
    assert launch.tuned(("call",), candidates, lambda config: None) is candidates[1]
