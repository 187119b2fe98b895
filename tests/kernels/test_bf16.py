"""Under bf16 autocast on a CPU: the compiled implementations are the formula in fp64 to the digits of bf16, and no
further from it than PyTorch's own operations; they keep autocast's dtypes; and what ran is on record.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kernels.attention import softmax_read
from kernels.cpu import build
from kernels.cpu.bf16 import choice
from kernels.cpu.call import pytorch_only
from kernels.cpu.library import bf16_product, library
from kernels.gates import EPS, gated_mix
from kernels.projection import modulated_projection
from kernels.registry import KERNELS, Kernel
from kernels.rows import swiglu
from tests.kernels.every_kernel import with_gradients
from tests.tolerances import BF16

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))) or bf16_product() is None,
    reason="no C++ compiler here, or no product in bf16 to call",
)
SPLITS = (9, 0, 14)
Function = Callable[..., Tensor]
HALF = [kernel for kernel in KERNELS if kernel.under_autocast]


@pytest.fixture(autouse=True)
def _nothing_has_run() -> Iterator[None]:
    choice.forget()
    yield
    choice.forget()


def normal(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    """In fp32, with the digits of bf16: no rounding of the inputs is part of a comparison."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
    return drawn.bfloat16().float()


def swiglu_by_loop(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Token by token and channel by channel."""
    width, made = down.shape[1], []
    for row in x.reshape(-1, x.shape[-1]):
        z = [row @ u for u in up]
        inner = [a / (1 + torch.exp(-a)) * b for a, b in zip(z[:width], z[width:], strict=True)]
        made.append(down @ torch.stack(inner))
    return torch.stack(made).view(x.shape)


def projection_by_loop(x: Tensor, w: Tensor, s: Tensor, p: Tensor) -> Tensor:
    rows = [
        torch.stack([(a @ w[c]) * (1 + b @ p[:, c]) for c in range(len(w))])
        for a, b in zip(x.flatten(0, 1), s.flatten(0, 1), strict=True)
    ]
    return torch.stack(rows).view(*x.shape[:-1], -1)


def attention_by_loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.empty(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    rows = []
    for b, t, h in torch.cartesian_prod(*map(torch.arange, out.shape[:3])).tolist():
        scores = torch.stack([q[b, t, h] @ k[b, i, h] for i in range(t + 1)]) / math.sqrt(q.shape[-1])
        rows.append(scores.softmax(0) @ v[b, : t + 1, h])
    return torch.stack(rows).view(out.shape)


def gates_by_loop(mu: Tensor, F: Tensor, a: Tensor, b: Tensor) -> Tensor:
    rows = []
    for m, f, inner, outer in zip(*(x.flatten(0, -2) for x in (mu, F, a, b)), strict=True):
        s, lam = torch.log1p(torch.exp(outer)), 1 / (1 + torch.exp(-inner))
        rows.append(s / torch.sqrt((s * s).mean() + EPS) * ((1 - lam) * m + lam * f))
    return torch.stack(rows).view(mu.shape)


def projected(*tensors: Tensor) -> Tensor:
    x, w, s, p = tensors
    return torch.cat(modulated_projection(x, w, SPLITS, s, p), -1)


def case(name: str, tokens: int) -> tuple[Function, Function, list[Tensor]]:
    """The public function, the loop, and the inputs."""
    match name:
        case "swiglu":
            weights = normal(46, 12, seed=1, size=12**-0.5), normal(12, 23, seed=2, size=23**-0.5)
            return swiglu, swiglu_by_loop, [normal(2, tokens, 12, seed=0), *weights]
        case "projection":
            w, s, p = normal(23, 12, seed=1, size=0.3), normal(2, tokens, 3, seed=2), normal(3, 23, seed=3, size=0.3)
            return projected, projection_by_loop, [normal(2, tokens, 12, seed=0), w, s, p]
        case "attention":
            q, k, v = (normal(1, tokens, 2, width, seed=width) for width in (8, 8, 5))
            return lambda q, k, v: softmax_read(q, k, v, causal=True), attention_by_loop, [q, k, v]
        case _:
            return gated_mix, gates_by_loop, [normal(2, tokens, 2, 6, seed=i).bfloat16() for i in range(4)]


def gradients(function: Function, inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The result, and the gradient of every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]


def apart(got: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """The largest difference of each tensor, relative to its largest wanted entry."""
    return [
        float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(got, wanted, strict=True)
    ]


@pytest.mark.parametrize("tokens", [1, 33, 70])
@pytest.mark.parametrize("kernel", HALF, ids=lambda kernel: kernel.name)
def test_results_and_gradients_are_those_of_a_loop_in_fp64(kernel: Kernel, tokens: int) -> None:
    function, loop, inputs = case(kernel.name, tokens)
    upstream = normal(*loop(*inputs).shape, seed=9)
    wanted = gradients(loop, [x.double() for x in inputs], upstream)
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(function, inputs, upstream)
        with pytorch_only():
            theirs = gradients(function, inputs, upstream)
    assert choice.ran() == {kernel.name: kernel.under_autocast}
    assert ours[0].dtype == torch.bfloat16
    assert [x.dtype for x in ours] == [x.dtype for x in theirs]
    assert max(apart(ours, wanted)) <= BF16
    assert max(apart(ours, wanted)) <= max(apart(theirs, wanted)) + BF16 / 4


@pytest.mark.parametrize(("rows", "dim", "width"), [(1, 3, 2), (33, 5, 5000), (1300, 64, 176), (3000, 8, 300)])
def test_the_swiglu_is_right_at_any_size(rows: int, dim: int, width: int) -> None:
    """The last sizes need several blocks of rows per part of the weights' gradients."""
    inputs = [
        normal(rows, dim, seed=0),
        normal(2 * width, dim, seed=1, size=dim**-0.5),
        normal(dim, width, seed=2, size=width**-0.5),
    ]

    def formula(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        gate, value = (x @ up.T).chunk(2, dim=-1)
        return (gate * gate.sigmoid() * value) @ down.T

    upstream = normal(rows, dim, seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(swiglu, inputs, upstream)
    assert max(apart(got, gradients(formula, [x.double() for x in inputs], upstream))) <= BF16


def test_the_projection_is_right_in_several_blocks_of_rows() -> None:
    function, _, inputs = case("projection", 1300)
    upstream = normal(2, 1300, 23, seed=9)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(function, inputs, upstream)
    wanted = gradients(lambda x, w, s, p: (x @ w.T) * (1 + s @ p), [x.double() for x in inputs], upstream)
    assert max(apart(got, wanted)) <= BF16


@pytest.mark.parametrize("kernel", HALF, ids=lambda kernel: kernel.name)
def test_inputs_in_bf16_get_gradients_in_bf16(kernel: Kernel) -> None:
    function, _, inputs = case(kernel.name, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(function, [x.bfloat16() for x in inputs], torch.ones(()).expand(function(*inputs).shape))
    assert {x.dtype for x in found} == {torch.bfloat16}


@pytest.mark.parametrize("kernel", HALF, ids=lambda kernel: kernel.name)
def test_nan_stays_visible_in_bf16(kernel: Kernel) -> None:
    function, _, inputs = case(kernel.name, 6)
    inputs[0][0, 3] = torch.nan
    others = slice(0, 3) if kernel.name == "attention" else [0, 1, 2, 4, 5]
    with torch.autocast("cpu", torch.bfloat16):
        out = function(*inputs)
    assert choice.ran() == {kernel.name: kernel.under_autocast}
    assert bool(out[0, 3].isnan().all())
    assert bool(out[0, others].isfinite().all())


def projected_numbers(x: Tensor, w: Tensor, s: Tensor) -> Tensor:
    """`x Wᵀ (1 + s)` of each row under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        (got,) = modulated_projection(x[None], w, (1,), s[None], torch.ones(1, 1))
    return got.flatten()


def test_sums_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    step = 2.0**-8  # half a unit in the last place of 1
    x = torch.tensor([[1, 0], [1, 1], [1, 1.0625], [1, 3], [-1, -1], [-1, -3], [3e38, 3e38 / step]])
    wide = x @ torch.tensor([1.0, step])
    got = projected_numbers(x, torch.tensor([[1.0, step]]), torch.zeros(7, 1))
    assert torch.equal(got, wide.bfloat16())
    assert got[1] == 1.0
    assert got[3] == 1 + 4 * step
    assert bool(got[6].isinf())


def test_nan_with_every_bit_set_is_not_rounded_to_zero() -> None:
    s = torch.tensor([[2**31 - 1], [-1]], dtype=torch.int32).view(torch.float32)
    assert bool(s.isnan().all())
    assert bool(projected_numbers(torch.ones(2, 1), torch.ones(1, 1), s).isnan().all())


@pytest.mark.parametrize("kernel", HALF, ids=lambda kernel: kernel.name)
def test_the_number_of_threads_changes_no_bit(kernel: Kernel) -> None:
    function, _, inputs = case(kernel.name, 700)
    before, found = torch.get_num_threads(), []
    upstream = torch.ones(())
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.autocast("cpu", torch.bfloat16):
                out = function(*inputs)
                found.append(gradients(function, inputs, upstream.expand(out.shape)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("kernel", HALF, ids=lambda kernel: kernel.name)
def test_without_the_library_the_record_names_pytorch(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    function, _, inputs = case(kernel.name, 5)
    with torch.autocast("cpu", torch.bfloat16):
        function(*inputs)
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
        function(*inputs)
    assert choice.ran() == {kernel.name: f"{kernel.under_autocast}, pytorch"}


def test_in_fp32_nothing_is_recorded_and_fp64_is_left_alone() -> None:
    function, _, inputs = case("swiglu", 5)
    assert function(*inputs).dtype == torch.float32
    assert choice.ran() == {}
    with torch.autocast("cpu", torch.bfloat16):
        assert function(*(x.double() for x in inputs)).dtype == torch.float64
    assert choice.ran() == {"swiglu": "pytorch"}


def test_every_cpp_function_for_bf16_belongs_to_a_kernel_and_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {
        name
        for path in build.SOURCES
        for name in re.findall(r'^extern "C" void (\w+)_bf16\(', path.read_text("utf-8"), re.M)
    }
    assert {name for kernel in KERNELS for name in kernel.bf16} == {name.removesuffix("_backward") for name in written}
    compiled, called = library(), set[str]()

    class Recording:
        def __getattr__(self, name: str) -> object:
            called.add(name.removesuffix("_bf16"))
            return getattr(compiled, name)

    monkeypatch.setattr("kernels.cpu.call.library", Recording)
    for kernel in HALF:
        for call in kernel.calls:
            with torch.autocast("cpu", torch.bfloat16):
                with_gradients(kernel, call, call.draw(torch.float32))
    assert written <= called
