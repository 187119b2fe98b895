"""What holds for every registered kernel, in C++ and in PyTorch: a new entry of the registry is tested here at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.calls import Call
from kernels.registry import Kernel
from tests.kernels.every_kernel import cases, computed, names, with_gradients
from tests.tolerances import FP32_SCAN, FP64

PLANTED = 20  # the token that is changed
every_call = pytest.mark.parametrize(("kernel", "call"), cases())
every_compiled_call = pytest.mark.parametrize(("kernel", "call"), cases(lambda kernel: bool(kernel.cpp)))


@every_call
def test_nan_in_any_input_shows_in_the_results(
    kernel: Kernel, call: Call, cpp_or_pytorch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that diverges must show it. In no more rows than in PyTorch's implementation."""
    for i, x in enumerate(call.inputs):
        tensors = call.draw(torch.float32)
        tensors[i][tuple(PLANTED if letter == "T" else 0 for letter in x.dims)] = torch.nan
        found = computed(kernel, call, tensors).isnan().any(-1)
        sequences = slice(None) if x.reach == "all" else slice(0, 1)
        tokens = slice(PLANTED, PLANTED + 1) if x.reach == "row" else slice(PLANTED, None)
        assert bool(found[sequences, tokens].all()), f"NaN in {x.name} does not show"
        with monkeypatch.context() as patch:
            patch.setattr("kernels.cpu.call.library", lambda: None)
            assert bool(computed(kernel, call, tensors).isnan().any(-1)[found].all()), f"NaN in {x.name} spreads"


@every_call
def test_later_tokens_change_no_bit_of_earlier_results(kernel: Kernel, call: Call, cpp_or_pytorch: str) -> None:
    tensors = call.draw(torch.float32)
    before = computed(kernel, call, tensors)
    for x, tensor in zip(call.inputs, tensors, strict=True):
        if x.reach != "all":
            tensor.narrow(x.dims.index("T"), PLANTED, tensor.shape[x.dims.index("T")] - PLANTED).mul_(0.5)
    after = computed(kernel, call, tensors)
    assert torch.equal(after[:, :PLANTED], before[:, :PLANTED])
    assert not torch.equal(after[:, PLANTED:], before[:, PLANTED:])


@every_call
def test_fp32_has_the_values_and_gradients_of_fp64(kernel: Kernel, call: Call, cpp_or_pytorch: str) -> None:
    single = with_gradients(kernel, call, call.draw(torch.float32))
    double = with_gradients(kernel, call, [x.double() for x in call.draw(torch.float32)])
    for name, narrow, wide in zip(names(call), single, double, strict=True):
        assert narrow.dtype == torch.float32
        error, size = float((narrow - wide).abs().max()), float(wide.abs().max())
        assert error <= FP32_SCAN * size, f"{name}: off by {error:.2g}, largest entry {size:.2g}"


@every_compiled_call
def test_cpp_has_the_values_and_gradients_of_pytorch(
    kernel: Kernel, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = with_gradients(kernel, call, call.draw())
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    plain = with_gradients(kernel, call, call.draw())
    for name, fast, slow in zip(names(call), compiled, plain, strict=True):
        assert float((fast - slow).abs().max()) <= FP64 * float(slow.abs().max()), name


@every_compiled_call
def test_the_number_of_threads_changes_no_bit(kernel: Kernel, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough rows and channels for several parts and blocks, every call on as many threads as there are."""
    monkeypatch.setattr("kernels.cpu.call.WORK_PER_THREAD", 1)
    tensors, before, results = call.draw(B=3, T=150, E=130, D=40), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(kernel, call, tensors))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for others in results[1:] for one, other in zip(results[0], others, strict=True))


class _Called(torch.nn.Module):
    """A call of a kernel as a module, which is what `torch.export` takes."""

    def __init__(self, kernel: Kernel, call: Call) -> None:
        super().__init__()
        self.kernel, self.call = kernel, call

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return computed(self.kernel, self.call, tensors)


@every_call
@pytest.mark.parametrize("cpp_or_pytorch", ["c++", pytest.param("pytorch", marks=pytest.mark.slow)], indirect=True)
def test_an_exported_graph_has_the_same_values_and_gradients(kernel: Kernel, call: Call, cpp_or_pytorch: str) -> None:
    """For other inputs than those it was traced with. A graph is differentiated operation by operation, so a kernel
    must not write into what these keep for their gradients.
    """
    module, tensors, others = _Called(kernel, call), call.draw(), [x * 0.9 for x in call.draw()]
    graph = torch.export.export(module, tuple(x.clone().requires_grad_() for x in tensors)).module()
    for name, one, other in zip(names(call), _gradients_of(graph, others), _gradients_of(module, others), strict=True):
        assert float((one - other).abs().max()) <= FP64 * float(other.abs().max()), name


def _gradients_of(module: torch.nn.Module, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = module(*leaves)
    return [out.detach(), *torch.autograd.grad(linear(out), leaves)]


def with_gaps(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, with other numbers between them in memory."""
    return torch.stack((x, x + 1), dim=-1)[..., 0]


def linear(out: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient at the results is constant, so that a second derivative comes from the kernel alone."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return (out * weights).sum()


@every_call
@pytest.mark.parametrize("loss", [lambda out: out.square().sum(), linear], ids=["squares", "linear"])
@pytest.mark.parametrize("cpp_or_pytorch", ["c++", pytest.param("pytorch", marks=pytest.mark.slow)], indirect=True)
def test_a_second_derivative_is_right_or_refused(
    kernel: Kernel, call: Call, cpp_or_pytorch: str, loss: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Also where only one input is differentiated, which PyTorch's `once_differentiable` gets wrong in silence, and for
    inputs with gaps between their entries, whose contiguous copies are no part of the graph.
    """
    tensors = [with_gaps(x) for x in call.draw(torch.float64)]
    generator = torch.Generator().manual_seed(5)
    for i, x in enumerate(tensors):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64) * x.abs()

        def gradient(at: torch.Tensor, i: int = i, graph: bool = False) -> torch.Tensor:
            out = computed(kernel, call, [*tensors[:i], at, *tensors[i + 1 :]])
            return torch.autograd.grad(loss(out), at, create_graph=graph)[0]

        leaf = with_gaps(x).requires_grad_()
        try:
            first = gradient(leaf, graph=True)
            found = second(first, leaf, direction)
        except RuntimeError:  # ours, or PyTorch's for operations that it cannot differentiate twice
            continue
        step = 1e-6
        after, before = (gradient(with_gaps(x + sign * step * direction).requires_grad_()) for sign in (1, -1))
        expected = (after - before) / (2 * step)
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-3))
        assert error < 1e-4, f"{call.inputs[i].name}: off by {error:.2g}"


def second(first: torch.Tensor, leaf: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The derivative of a gradient; zero where it is not connected to the leaf, as in `autograd.functional.hvp`."""
    found = torch.autograd.grad(first, leaf, direction, allow_unused=True)[0] if first.requires_grad else None
    return torch.zeros_like(leaf) if found is None else found
