"""Where Triton can't run, PyTorch does, after one warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels import implementations
from kernels.calls import Call
from kernels.free_energy import free_energy_read
from kernels.implementations import attempt, ran, triton_module
from kernels.registry import KERNELS, Kernel
from kernels.scan import diagonal_scan
from tests.kernels.every_kernel import cases


@pytest.fixture(autouse=True)
def _fresh_record(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUITE_TRITON_KERNELS", "on")
    implementations.forget()
    yield
    implementations.forget()


@pytest.fixture
def on_gpu() -> torch.Tensor:
    """A tensor without memory whose device is a GPU."""
    with FakeTensorMode():
        return torch.empty(2, 3, 4, device="cuda")


def test_calls_on_a_cpu_import_no_triton_and_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    diagonal_scan(torch.ones(1, 4, 2), torch.ones(1, 4, 2))
    q, k, v = (torch.ones(1, 4, 1, 2) for _ in range(3))
    free_energy_read(q, k, v, torch.ones(1, 2), True)
    assert ran() == {}


def test_triton_is_chosen_only_where_it_is_requested(on_gpu: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITE_TRITON_KERNELS")
    monkeypatch.setattr(implementations, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert triton_module("scan", on_gpu, on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


@pytest.mark.parametrize(
    ("variable", "kind", "wanted"),
    [(None, "sm_90", True), (None, "sm_80", False), ("off", "sm_90", False), ("on", "sm_80", True)],
)
def test_a_kernel_is_the_default_on_the_gpus_that_it_passed_on(
    on_gpu: torch.Tensor, monkeypatch: pytest.MonkeyPatch, variable: str | None, kind: str, wanted: bool
) -> None:
    monkeypatch.delenv("SUITE_TRITON_KERNELS")
    if variable:
        monkeypatch.setenv("SUITE_TRITON_KERNELS", variable)
    monkeypatch.setattr(implementations, "PASSED", {"scan": ("sm_90",)})
    monkeypatch.setattr(implementations, "gpu_kind", lambda device: kind)
    assert implementations.triton_wanted("scan", on_gpu) is wanted
    assert implementations.triton_wanted("delta", on_gpu) is (variable == "on")
    assert not implementations.triton_wanted("scan", torch.empty(1))


def test_every_kernel_that_passed_exists_and_names_its_gpus() -> None:
    known = {kernel.name for kernel in KERNELS if kernel.triton}
    assert set(implementations.PASSED) <= known
    assert all(re.fullmatch(r"sm_\d{2,3}|gfx\w+", kind) for kinds in implementations.PASSED.values() for kind in kinds)


def test_gpus_are_named_as_triton_compiles_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert implementations.gpu_kind(torch.device("cuda")) == "sm_90"
    monkeypatch.setattr(torch.version, "hip", "6.0")
    properties = SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert implementations.gpu_kind(torch.device("cuda")) == "gfx942"


def test_without_a_driver_pytorch_runs_after_one_warning(on_gpu: torch.Tensor) -> None:
    with pytest.warns(RuntimeWarning, match=r"'scan' can't run as Triton: no Triton driver.*PyTorch runs"):
        assert triton_module("scan", on_gpu, on_gpu, on_gpu) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert triton_module("scan", on_gpu, on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "_no_driver", lambda: None)


def test_with_a_driver_the_triton_module_is_chosen_unless_it_refuses(
    on_gpu: torch.Tensor, driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(refusal=lambda why: why)
    monkeypatch.setattr(implementations, "import_module", {"kernels.gpu.scan": module}.__getitem__)
    assert triton_module("scan", on_gpu, None) is module
    assert ran() == {"scan": "triton"}
    with pytest.warns(RuntimeWarning, match="it takes others"):
        assert triton_module("scan", on_gpu, "it takes others") is None
    assert ran() == {"scan": "pytorch, triton"}


@pytest.mark.usefixtures("driver")
def test_a_kernel_that_failed_once_is_not_tried_again(on_gpu: torch.Tensor) -> None:
    def fails() -> str:
        raise RuntimeError("out of registers\nand more")

    with pytest.warns(RuntimeWarning, match="RuntimeError: out of registers;"):
        assert attempt("scan", fails, lambda: "reference") == "reference"
    assert triton_module("scan", on_gpu, on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


@pytest.mark.parametrize(("kernel", "call"), cases(lambda kernel: kernel.triton))
def test_kernels_take_fp32_and_refuse_fp16_with_the_reason(kernel: Kernel, call: Call) -> None:
    module = pytest.importorskip(f"kernels.gpu.{kernel.name}")
    assert module.refusal(*call.arguments(*call.draw(torch.float32))) is None
    assert "not float16" in module.refusal(*call.arguments(*call.draw(torch.float16)))


@pytest.mark.slow
def test_importing_the_kernels_does_not_import_triton() -> None:
    code = (
        "import sys\nfrom kernels.registry import KERNELS\n"
        "assert not any('kernels.linear' in name for name in sys.modules)\n"
        "for kernel in KERNELS:\n    kernel.load()\n"
        "assert not any('kernels.gpu' in name for name in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
