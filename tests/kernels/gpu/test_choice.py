"""Where Triton can't run PyTorch does, and it is said once."""

from __future__ import annotations

import os
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
from kernels.free_energy import free_energy_read
from kernels.implementations import attempt, ran, triton_form
from kernels.scan import diagonal_scan


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUITE_TRITON_KERNELS", "on")
    implementations.forget()
    yield
    implementations.forget()


@pytest.fixture
def on_gpu() -> torch.Tensor:
    """A tensor without memory that says it is on a GPU."""
    with FakeTensorMode():
        return torch.empty(2, 3, 4, device="cuda")


def test_cpu_tensors_ask_for_nothing_and_leave_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    diagonal_scan(torch.ones(1, 4, 2), torch.ones(1, 4, 2))
    free_energy_read(*(torch.ones(1, 4, 1, 2) for _ in range(3)), torch.ones(1, 2), True)
    assert ran() == {}


def test_they_are_chosen_only_where_they_are_asked_for(on_gpu: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITE_TRITON_KERNELS")
    monkeypatch.setattr(implementations, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert triton_form("scan", on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


def test_without_a_driver_it_is_said_once_and_pytorch_runs(on_gpu: torch.Tensor) -> None:
    with pytest.warns(RuntimeWarning, match=r"'scan' can't run as Triton: no Triton driver.*PyTorch runs"):
        assert triton_form("scan", on_gpu, on_gpu) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert triton_form("scan", on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations, "_no_driver", lambda: None)


def test_with_a_driver_the_triton_module_is_chosen_unless_it_refuses(
    on_gpu: torch.Tensor, driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(refusal=lambda why: why)
    monkeypatch.setattr(implementations, "import_module", {"kernels.gpu.scan": module}.__getitem__)
    assert triton_form("scan", on_gpu, None) is module
    assert ran() == {"scan": "triton"}
    with pytest.warns(RuntimeWarning, match="it takes red ones"):
        assert triton_form("scan", on_gpu, "it takes red ones") is None
    assert ran() == {"scan": "pytorch, triton"}


@pytest.mark.usefixtures("driver")
def test_what_failed_once_is_not_tried_again(on_gpu: torch.Tensor) -> None:
    def fails() -> str:
        raise RuntimeError("out of registers\nand more")

    with pytest.warns(RuntimeWarning, match="RuntimeError: out of registers;"):
        assert attempt("scan", fails, lambda: "reference") == "reference"
    assert triton_form("scan", on_gpu, on_gpu) is None
    assert ran() == {"scan": "pytorch"}


@pytest.mark.parametrize(
    ("name", "asked"), [("free_energy", (4, 4)), ("scan", (4,)), ("selective", (2, 4)), ("linear", (4, 4))]
)
def test_kernels_refuse_what_they_do_not_take(name: str, asked: tuple[int, ...]) -> None:
    module = pytest.importorskip(f"kernels.gpu.{name}")
    assert module.refusal(*(torch.empty(*[2] * n) for n in asked)) is None
    assert "not float16" in module.refusal(*(torch.empty(*[2] * n, dtype=torch.float16) for n in asked))


def test_importing_the_kernels_does_not_import_triton() -> None:
    code = (
        "import sys, kernels.free_energy, kernels.linear.free_energy, kernels.selective.free_energy, "
        "kernels.channelwise, kernels.hyper.lag_mixing\n"
        "assert not any('kernels.gpu' in name for name in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
