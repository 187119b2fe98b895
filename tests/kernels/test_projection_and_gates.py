"""The fused projections and gates are their formulas, with their gradients, for any number of rows and block size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import sigmoid, softplus

import kernels.gates as gates
import kernels.projection as projection
from tests.tolerances import FP32, FP64


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def on_threads(function: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """Its results on one, two and three threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(function())
    finally:
        torch.set_num_threads(before)
    return found


pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")


@pytest.fixture(params=[1, 1 << 17], ids=["small blocks", "one block"], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BLOCK_ELEMENTS", request.param)
    monkeypatch.setattr(gates, "BLOCK_ELEMENTS", request.param)


@pytest.mark.parametrize("tokens", [1, 33, 70, 1300])
def test_each_projection_is_scaled_by_its_own_part_of_the_factors(tokens: int) -> None:
    x, w, s, p = normal(2, tokens, 3, seed=0), normal(7, 3, seed=1), normal(2, tokens, 2, seed=2), normal(2, 7, seed=3)
    outs = projection.modulated_projection(x, w, (4, 0, 3), s, p)
    wanted = (x @ w.T) * (1 + s @ p)
    assert [out.shape[-1] for out in outs] == [4, 0, 3]
    assert torch.allclose(torch.cat(outs, -1), wanted, rtol=0, atol=FP64)
    assert torch.autograd.gradcheck(
        lambda *a: projection.modulated_projection(a[0], a[1], (4, 0, 3), a[2], a[3]), (x, w, s, p), fast_mode=True
    )


@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_the_gates_are_their_formula(tokens: int) -> None:
    mu, F, a, b = (normal(2, tokens, 3, 4, seed=i) for i in range(4))
    b = (20 * b).detach().requires_grad_()  # softplus from e^{−40} to 40
    s = softplus(b)
    wanted = s / (s.square().mean(-1, keepdim=True) + 1e-5).sqrt() * ((1 - sigmoid(a)) * mu + sigmoid(a) * F)
    assert torch.allclose(gates.gated_mix(mu, F, a, b), wanted, rtol=0, atol=FP64)
    assert torch.autograd.gradcheck(gates.gated_mix, (mu, F, a, b), fast_mode=True)
    single = gates.gated_mix(*(x.detach().float() for x in (mu, F, a, b)))
    assert float((single - wanted).detach().abs().max()) <= FP32 * float(wanted.detach().abs().max())


def test_under_autocast_the_formula_runs_in_half_precision() -> None:
    x, w, s, p = (
        t.detach().float()
        for t in (normal(2, 9, 3, seed=0), normal(7, 3, seed=1), normal(2, 9, 2, seed=2), normal(2, 7, seed=3))
    )
    with torch.autocast("cpu", torch.bfloat16):
        outs = projection.modulated_projection(x, w, (4, 3), s, p)
    assert outs[0].dtype == torch.bfloat16
    assert torch.allclose(torch.cat(outs, -1).float(), (x @ w.T) * (1 + s @ p), atol=0.05, rtol=0.05)


def test_nan_stays_visible() -> None:
    """A run that diverges must show it."""
    for which in range(4):
        inputs = [normal(1, 5, 2, 16, seed=i).detach().float() for i in range(4)]
        inputs[which][0, 2, 1, 3] = torch.nan
        assert bool(gates.gated_mix(*inputs)[0, 2, 1, 3].isnan())


@pytest.mark.parametrize("tokens", [1, 3, 70, 1300])
@pytest.mark.parametrize("splits", [(7,), (4, 0, 1, 2)])
def test_plain_projections_are_their_products(tokens: int, splits: tuple[int, ...]) -> None:
    x, w = normal(2, tokens, 3, seed=0), normal(7, 3, seed=1)
    outs = projection.projections(x, w, splits)
    assert torch.allclose(torch.cat(outs, -1), x @ w.T, rtol=0, atol=FP64)
    assert [out.shape[-1] for out in outs] == list(splits)
    assert torch.autograd.gradcheck(lambda x, w: projection.projections(x, w, splits), (x, w), fast_mode=True)


def test_a_projection_that_nothing_reads_adds_no_gradient() -> None:
    x, w = normal(2, 70, 3, seed=0), normal(7, 3, seed=1)
    first, _, last = projection.projections(x, w, (4, 1, 2))
    (first.square().sum() + last.sum()).backward()
    plain_x, plain_w = (t.detach().clone().requires_grad_() for t in (x, w))
    y = plain_x @ plain_w.T
    (y[..., :4].square().sum() + y[..., 5:].sum()).backward()
    for found, wanted in ((x.grad, plain_x.grad), (w.grad, plain_w.grad)):
        assert found is not None
        assert wanted is not None
        assert torch.allclose(found, wanted, rtol=0, atol=1e3 * FP64)


def test_plain_projections_under_autocast_have_the_gradients_of_the_formula() -> None:
    x, w = (t.detach().float().requires_grad_() for t in (normal(2, 70, 3, seed=0), normal(7, 3, seed=1)))
    with torch.autocast("cpu", torch.bfloat16):
        outs = projection.projections(x, w, (4, 3))
        loss = sum((out.float().sin().sum() for out in outs), torch.zeros(()))
    found = torch.autograd.grad(loss, (x, w))
    wide = [t.detach().double().requires_grad_() for t in (x, w)]
    wanted = torch.autograd.grad((wide[0] @ wide[1].T).sin().sum(), wide)
    for got, expected in zip(found, wanted, strict=True):
        assert float((got - expected).abs().max()) <= 0.05 * float(expected.abs().max())


@pytest.mark.parametrize("rows", [600, 1023, 1024, 2100])
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_gradients_of_few_and_many_rows_are_the_formulas_on_any_threads(
    rows: int, scaled: bool, cpp_or_pytorch: str
) -> None:
    """Few rows share their channels among threads, many their rows."""
    x, w, s, p = normal(1, rows, 24, seed=0), normal(70, 24, seed=1), normal(1, rows, 2, seed=2), normal(2, 70, seed=3)
    given = (x, w, s, p) if scaled else (x, w)

    def outs(*t: Tensor) -> tuple[Tensor, ...]:
        return projection.modulated_projection(t[0], t[1], (40, 30), t[2], t[3]) if scaled else both(t[0], t[1])

    def both(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return projection.projections(x, w, (40, 30))

    def loss(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(parts), -1).sin().sum()

    wanted = torch.autograd.grad(loss([x @ w.T * (1 + s @ p if scaled else 1)]), given)
    found = on_threads(lambda: torch.autograd.grad(loss(outs(*given)), given))
    for one, *others, formula in zip(*found, wanted, strict=True):
        assert cpp_or_pytorch == "pytorch" or all(torch.equal(one, other) for other in others)
        assert torch.allclose(one, formula, rtol=0, atol=FP64 * max(1.0, float(formula.abs().max())))


@pytest.mark.parametrize("rows", [1023, 1024])
def test_sums_of_large_weights_in_fp32_are_the_formulas_on_any_threads(rows: int, cpp_or_pytorch: str) -> None:
    """A weight of several blocks, whose partial sums are added on several threads."""
    drawn = normal(1, rows, 300, seed=0), normal(301, 300, seed=1) / 300**0.5
    x, w = (t.detach().float().requires_grad_() for t in drawn)
    found = on_threads(
        lambda: torch.autograd.grad(torch.cat(projection.projections(x, w, (200, 101)), -1).sin().sum(), (x, w))
    )
    wide_x, wide_w = (t.detach().double().requires_grad_() for t in (x, w))
    wanted = torch.autograd.grad((wide_x @ wide_w.T).sin().sum(), (wide_x, wide_w))
    for one, *others, formula in zip(*found, wanted, strict=True):
        assert cpp_or_pytorch == "pytorch" or all(torch.equal(one, other) for other in others)
        assert torch.allclose(one.double(), formula, rtol=0, atol=FP32 * float(formula.abs().max()))
