"""Second derivatives of every mixer: right, or refused, on every path that PyTorch offers."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from backbones.mixers import build, registry

DIM, LENGTH = 64, 12
#: They read more than their input.
NEED_CONTEXT = ("static-qk", "random-qk", "fixed-qk")


#: Ours, and PyTorch's for operations that it cannot differentiate twice.
REFUSALS = "has no second derivative|derivative for .* is not implemented|modified by an inplace operation"
NAMES = [n for n in registry.names() if registry.origin(n) == "built-in" and n not in NEED_CONTEXT and "fla/" not in n]


def _is_offered(name: str, causal: bool) -> bool:
    offered = registry.get(name).capabilities
    return offered.causal if causal else offered.bidirectional


DIRECTIONS = [(n, causal) for n in NAMES for causal in (True, False) if _is_offered(n, causal)]


def mixer(name: str, *, causal: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return build(name, dim=DIM, length=LENGTH, causal=causal, heads=2).double()


def product(module: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """Hessian times v of Σ y²."""
    found: Tensor = torch.autograd.functional.hvp(lambda z: module(z).square().sum(), x, v)[1]
    return found


def differences(module: nn.Module, x: Tensor, v: Tensor, step: float = 1e-5) -> Tensor:
    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(module(at).square().sum(), at)[0]

    return (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)


@pytest.mark.parametrize("kernels", ["compiled", "pytorch"])
@pytest.mark.parametrize(("name", "causal"), DIRECTIONS)
def test_a_hessian_product_is_right_or_refused(
    name: str, causal: bool, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "pytorch":
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    module, x, v = mixer(name, causal=causal), *torch.randn(2, 1, LENGTH, DIM, dtype=torch.float64).unbind(0)
    refusal, found = "", None
    try:
        found = product(module, x, v)
    except RuntimeError as error:
        refusal = str(error)
    if found is None:
        assert re.search(REFUSALS, refusal)
        return
    expected = differences(module, x, v)
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["linear", "retention", "taylor"])
def test_mixers_that_the_message_names_have_a_second_derivative(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, v = mixer(name), *torch.randn(2, 1, LENGTH, DIM, dtype=torch.float64).unbind(0)
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    expected = differences(module, x, v)
    assert float((product(module, x, v) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["softmax", "ssm", "hyperglu"])
def test_a_refused_second_derivative_costs_no_first_one(name: str) -> None:
    module, x = mixer(name), torch.randn(1, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    plain = torch.autograd.grad(module(x).square().sum(), x)[0]
    with_graph = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)[0]
    assert torch.equal(plain, with_graph)
