"""The registry lists every kernel, C++ function and Triton module, and every entry has tests of its own."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kernels.cpu import build
from kernels.cpu import library as built
from kernels.registry import KERNELS, Kernel, get
from tests.kernels.every_kernel import with_gradients

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kernels"
DOCUMENT = ROOT / "docs" / "kernels.md"
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
#: Tests that read the registry; they do not count as an entry's own.
#: Of decoding: they have no gradients.
STEPS = (
    "linear_step",
    "selective_step",
    "memory_step",
    "feature_step",
    "silu_convolution_step",
    "convolution_step",
    "selective_layer_step",
    "channel_layer_step",
    "rwkv_step",
    "taylor_step",
)
#: The product that the others call, for comparing it with other libraries' and for its tests.
OWN_PRODUCT = "product"
GENERIC = ("every_kernel.py", "test_every_kernel.py", "test_registry.py")


def exported() -> dict[str, str]:
    """C++ functions without their dtype: which kernel each one is, or is the gradient of."""
    names = [
        name
        for path in build.SOURCES
        for name in re.findall(r'^\s*extern "C" (?:void|long) (\w+)_##NAME', path.read_text("utf-8"), re.M)
    ]
    return {name: name.removesuffix("_backward") for name in names}


def used_names(path: Path) -> set[str]:
    """ "module:name" of everything of `kernels` that a file imports and, of modules, uses."""
    tree, modules, found = ast.parse(path.read_text("utf-8")), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kernels":
            for alias in node.names:
                found.add(f"{node.module}:{alias.name}")
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.add(f"{modules[node.value.id]}:{node.attr}")
    return found


def choosing_modules() -> Iterator[str]:
    """Modules of the package that choose between implementations."""
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        chooses = used_names(path) & {
            "kernels.cpu.call:takes",
            "kernels.cpu.call:multiplies",
            "kernels.cpu.bf16.choice:takes_half",
            "kernels.implementations:triton_module",
        }
        if chooses and not module.startswith("kernels.cpu"):
            yield module


def test_names_and_functions_are_unique() -> None:
    assert len({kernel.name for kernel in KERNELS}) == len({kernel.function for kernel in KERNELS}) == len(KERNELS)
    assert get("scan") in KERNELS
    with pytest.raises(KeyError):
        get("scam")


def test_every_module_that_chooses_an_implementation_is_registered() -> None:
    registered = {kernel.function.split(":")[0] for kernel in KERNELS}
    assert set(choosing_modules()) - registered == set()


def test_every_cpp_function_belongs_to_one_kernel() -> None:
    registered = [name for kernel in KERNELS for name in kernel.cpp]
    assert sorted([*registered, *STEPS, OWN_PRODUCT]) == sorted(set(exported().values()))


def test_every_triton_module_belongs_to_a_kernel() -> None:
    written = {path.stem for path in PACKAGE.joinpath("gpu").glob("*.py") if "def refusal(" in path.read_text("utf-8")}
    assert {kernel.name for kernel in KERNELS if kernel.triton} == written


@every_kernel
def test_a_kernel_has_tests_of_its_own(kernel: Kernel) -> None:
    tests = [path for path in Path(__file__).parent.rglob("test_*.py") if path.name not in GENERIC]
    assert any(kernel.function in used_names(path) for path in tests), f"no test of {kernel.function} in tests/kernels"


@every_kernel
def test_the_documented_table_has_the_kernel(kernel: Kernel) -> None:
    implementations = f"{'C++' if kernel.cpp else ''} | {'Triton' if kernel.triton else ''}"
    row = f"| `{kernel.name}` | `{kernel.function.replace(':', '.')}` | {kernel.computes} | {implementations} |"
    assert row in DOCUMENT.read_text("utf-8"), f"docs/kernels.md lacks: {row}"


def test_the_registry_names_the_kernels_that_the_bench_compares() -> None:
    compared = {kernel.function for kernel in KERNELS if kernel.compared}
    assert used_names(ROOT / "suite" / "bench" / "kernels.py") & {kernel.function for kernel in KERNELS} == compared


@every_kernel
def test_an_entry_is_whole(kernel: Kernel) -> None:
    assert kernel.computes
    assert kernel.calls
    assert kernel.load().__module__ == kernel.function.split(":")[0]
    for call in kernel.calls:
        assert len({x.name for x in call.inputs}) == len(call.inputs)
        assert any("T" in x.dims for x in call.inputs)
    compiled = [shape for call in kernel.calls for shape in call.on_gpu]
    assert bool(compiled) == kernel.triton, "Triton kernels need calls that are compiled ahead of time"
    assert kernel.work is None or kernel.triton


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel.triton], ids=lambda kernel: kernel.name)
def test_triton_takes_the_arguments_of_the_public_function(kernel: Kernel) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    public, triton = kernel.load(), kernel.load_triton()
    refusal = inspect.signature(triton).parameters
    assert triton.__name__ == public.__name__
    shared = list(inspect.signature(public).parameters)[: len(refusal)]
    assert list(refusal) == shared


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel.cpp], ids=lambda kernel: kernel.name)
def test_the_calls_of_a_kernel_reach_all_its_cpp_functions(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    library, called = built.library(), set[str]()
    if library is None or built.products() is None:
        pytest.skip("no C++ compiler here, or no matrix products to call")

    class Recording(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            called.add(name.removesuffix("_double"))
            return getattr(library, name)

    monkeypatch.setattr("kernels.cpu.call.library", Recording)
    for call in kernel.calls:
        with_gradients(kernel, call, call.draw(torch.float64))
    assert {name for name, forward in exported().items() if forward in kernel.cpp} <= called
