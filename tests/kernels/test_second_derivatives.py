"""Every `torch.autograd.Function` has a right second derivative, or refuses one by the suite's own decorator."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels.cpu import rows as cpu_rows
from kernels.linear import sums
from kernels.rows import _Rotate
from suite.training.parallel import batch_norm

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernels", "backbones", "tasks", "suite")
GUARD = "first_derivative_only"
#: The node that raises, and is no kernel.
RAISES = "kernels/numerics/first_derivative.py:_Refused"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """With other numbers between them in memory, of which a contiguous copy has no graph."""
    draw = torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw[..., 0].requires_grad_()


def rotation(apply: Callable[..., tuple[Tensor, ...]]) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    angle = torch.arange(6, dtype=torch.float64).view(3, 2)
    cos, sin = (x if apply is cpu_rows.Rotate.apply else x[:, None] for x in (angle.cos(), angle.sin()))
    return lambda x, y: tuple(turned.sin() for turned in apply(cos, sin, x, y))


#: Functions without the guard: what computes by them, and its inputs. (PyTorch refuses that of the decays.)
TWICE: dict[str, tuple[Callable[..., Tensor | tuple[Tensor, ...]], Callable[[], list[Tensor]]]] = {
    "kernels/linear/sums.py:_DecayedSums": (
        lambda q, k, v: sums._DecayedSums.apply(q, k, v, torch.full((1, 9, 1, 1), -0.1, dtype=q.dtype)),
        lambda: [numbers(1, 9, 1, width, seed=width) for width in (2, 2, 3)],
    ),
    "kernels/rows.py:_Rotate": (rotation(_Rotate.apply), lambda: [numbers(2, 3, 1, 4), numbers(2, 3, 1, 4, seed=1)]),
    "kernels/cpu/rows.py:Rotate": (
        rotation(cpu_rows.Rotate.apply),
        lambda: [numbers(2, 3, 1, 4), numbers(2, 3, 1, 4, seed=1)],
    ),
    # two ranks with equal rows
    "suite/training/parallel/batch_norm.py:_Sum": (
        lambda x: batch_norm._Sum.apply(x, lambda y: 2 * y.detach()).sin(),
        lambda: [numbers(2, 3)],
    ),
}


def unguarded(source: str) -> Iterator[str]:
    """Names of the `autograd.Function` classes whose backward pass lacks the guard."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and any(
            ast.unparse(base).split(".")[-1] == "Function" for base in node.bases
        ):
            methods = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.name in ("backward", "vjp")]
            if not any(GUARD in map(ast.unparse, method.decorator_list) for method in methods):
                yield node.name


def test_every_autograd_function_is_guarded_or_tested_for_second_derivatives() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{name}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in unguarded(path.read_text("utf-8"))
    }
    assert found == {*TWICE, RAISES}


def test_the_search_for_unguarded_functions_finds_one() -> None:
    start = "class Kernel(torch.autograd.Function):\n    @staticmethod\n"
    backward = "    def backward(ctx, grad):\n        return grad\n"
    assert list(unguarded(start + backward)) == ["Kernel"]
    assert list(unguarded(start.replace("torch.autograd.", "") + "    @once_differentiable\n" + backward)) == ["Kernel"]
    assert list(unguarded(start + f"    @{GUARD}\n" + backward)) == []


@pytest.mark.parametrize("name", TWICE)
def test_an_unguarded_function_has_a_right_second_derivative(name: str) -> None:
    function, inputs = TWICE[name]
    assert torch.autograd.gradcheck(function, inputs())
    assert torch.autograd.gradgradcheck(function, inputs())
