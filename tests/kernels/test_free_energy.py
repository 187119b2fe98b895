"""The free-energy read over softmax: which implementation runs, and that results do not depend on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.free_energy import free_energy_read, implementation
from tests.tolerances import FP64

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")

H, D = 2, 4


def problem(
    tokens: int,
    key: int = 8,
    size: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    q = torch.randn(2, rows or tokens, H, key, generator=draw, dtype=torch.float64)
    k, v = (torch.randn(2, tokens, H, w, generator=draw, dtype=torch.float64) for w in (key, D))
    return q.to(dtype), k.to(dtype), (size * v).to(dtype)


def by_loop(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, causal: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Row by row in fp64; with a tiny β by the mean of expm1, because log-sum-exp would cancel."""
    q, k, v, beta = (x.double() for x in (q, k, v, beta))
    mu, F = torch.empty(*q.shape[:3], D, dtype=torch.float64), torch.empty(*q.shape[:3], D, dtype=torch.float64)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            seen = torch.arange(k.shape[1]) <= t if causal else torch.ones(k.shape[1], dtype=torch.bool)
            if mask is not None:
                seen = seen & mask[b]
            for h in range(H):
                log_p = (k[b, seen, h] @ q[b, t, h] / q.shape[-1] ** 0.5).log_softmax(0)[:, None]
                u = beta[h] * v[b, seen, h]
                mu[b, t, h] = (log_p.exp() * v[b, seen, h]).sum(0)
                small = (log_p.exp() * u.expm1()).sum(0).log1p()
                F[b, t, h] = torch.where(u.abs().amax(0) < 0.1, small, (log_p + u).logsumexp(0)) / beta[h]
    return mu, F


def close(got: Tensor, wanted: Tensor, fraction: float) -> bool:
    return float((got.double() - wanted).detach().abs().max()) <= fraction * float(wanted.abs().max())


def betas(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.full((H, D), value, dtype=dtype)


@pytest.mark.parametrize(
    ("value", "beta", "chosen"),
    [
        (15.0, 1.9, "one pass"),
        (16.0, 1.9, "one pass in fp64"),
        (-16.0, 1.9, "one pass in fp64"),
        (-132.0, 1.9, "exact rows"),
        (39.0, 0.1, "one pass"),
        (41.0, 0.1, "one pass in fp64"),
        (181.0, 0.1, "exact rows"),
        (1e6, 1e-6, "one pass"),
    ],
)
def test_the_choice_follows_the_range_of_the_values(value: float, beta: float, chosen: str) -> None:
    v = torch.zeros(2, 5, H, D)
    v[1, 3, 1, 2] = value
    assert implementation(v, betas(beta, torch.float32)) == chosen
    assert implementation(v.to("meta"), betas(beta, torch.float32).to("meta")) == "one pass"


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("key", [4, 8, 12], ids=["keys narrower", "keys as wide", "keys wider"])
@settings(max_examples=8, deadline=None)
@given(
    tokens=st.sampled_from([1, 2, 7, 33, 70]),
    size=st.sampled_from([1e-3, 1.0, 60.0]),
    beta=st.sampled_from([1e-6, 0.1, 0.49, 0.51, 1.9]),
    seed=st.integers(0, 99),
)
def test_mean_and_free_energy_are_the_formula(
    causal: bool, key: int, tokens: int, size: float, beta: float, seed: int
) -> None:
    q, k, v = problem(tokens, key, size, seed)
    for got, wanted in zip(
        free_energy_read(q, k, v, betas(beta), causal), by_loop(q, k, v, betas(beta), causal), strict=True
    ):
        assert close(got, wanted, FP64 if beta * size > 1e-2 else 1e-7)


@pytest.mark.parametrize("tokens", [63, 64, 65, 128, 257])
def test_blocks_of_rows_are_right_at_their_edges(tokens: int) -> None:
    """The first value out of range is in the first, second or third block of rows."""
    q, k, v = problem(tokens)
    for at in {0, min(63, tokens - 1), tokens // 2, tokens - 1}:
        late = v.clone()
        late[:, at] += 150.0
        assert implementation(late, betas(1.9)) == "exact rows"
        for got, wanted in zip(free_energy_read(q, k, late, betas(1.9), True), by_rows(q, k, late, 1.9), strict=True):
            assert close(got, wanted, FP64)


def by_rows(q: Tensor, k: Tensor, v: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(μ, F), causal, all rows at once in fp64."""
    return softmax_mean(q, k, v), by_loop_rows(q, k, beta * v) / beta


def softmax_mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bshk,bthk->bhst", q, k) / q.shape[-1] ** 0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.einsum("bhst,bthd->bshd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def test_channels_of_small_and_large_beta_may_be_mixed() -> None:
    q, k, v = problem(20)
    mixed = torch.tensor([[1e-6, 0.1, 1.9, 8.0], [5.0, 0.4, 0.6, 1e-4]], dtype=torch.float64)
    mu, F = free_energy_read(q, k, v, mixed, True)
    wanted_mu, wanted_F = by_loop(q, k, v, mixed, True)
    assert close(mu, wanted_mu, FP64)
    assert close(F, wanted_F, FP64)


@pytest.mark.parametrize("size", [1.0, 60.0], ids=["one pass", "exact rows"])
def test_masked_keys_carry_no_weight_anywhere(size: float) -> None:
    q, k, v = problem(20, size=size)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 0] = True
    v = torch.where(mask[..., None, None], v, 1e3)
    for causal in (True, False):
        mu, F = free_energy_read(q, k, v, betas(1.9), causal, mask)
        wanted_mu, wanted_F = by_loop(q, k, v, betas(1.9), causal, mask)
        assert close(mu, wanted_mu, FP64)
        assert close(F, wanted_F, FP64)


def test_fewer_queries_than_keys_see_them_all() -> None:
    q, k, v = problem(20, rows=3)
    mu, F = free_energy_read(q, k, v, betas(1.9), causal=False)
    wanted_mu, wanted_F = by_loop(q, k, v, betas(1.9), causal=False)
    assert close(mu, wanted_mu, FP64)
    assert close(F, wanted_F, FP64)


def test_a_value_out_of_range_changes_no_bit_before_it() -> None:
    q, k, v = problem(50, dtype=torch.float32)
    late = v.clone()
    late[:, 40] = 1e4
    beta = betas(1.9, torch.float32)
    assert implementation(v, beta) == "one pass"
    assert implementation(late, beta) == "exact rows"
    for before, after in zip(
        free_energy_read(q, k, v, beta, True), free_energy_read(q, k, late, beta, True), strict=True
    ):
        assert torch.equal(after[:, :40], before[:, :40])


@pytest.mark.parametrize("jump", [55.0, 200.0])
def test_a_jump_inside_a_block_leaves_finite_right_gradients(jump: float) -> None:
    q, k, v = problem(64, dtype=torch.float32)
    v = (v + jump / 2 * torch.where(torch.arange(64) < 30, -1.0, 1.0)[:, None, None]).requires_grad_()
    mu, F = free_energy_read(q, k, v, betas(1.0, torch.float32), True)
    upstream = 65_536.0
    (gradient,) = torch.autograd.grad((upstream * F).sum(), v, retain_graph=True)
    wide = v.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad((upstream * by_loop_rows(q, k, wide)).sum(), wide)
    assert bool(gradient.isfinite().all())
    assert close(gradient, wanted, 1e-5)
    assert bool(torch.autograd.grad(mu.sum() + F.sum(), v)[0].isfinite().all())


def by_loop_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """F at β = 1, all rows at once, differentiable."""
    scores = torch.einsum("bshk,bthk->bhst", q.double(), k.double()) / q.shape[-1] ** 0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    log_p = scores.masked_fill(hidden, -torch.inf).log_softmax(-1)
    return (log_p[..., None] + v.transpose(1, 2)[:, :, None]).logsumexp(-2).transpose(1, 2)


@pytest.mark.parametrize("size", [1.0, 60.0], ids=["one pass", "exact rows"])
@pytest.mark.parametrize("beta", [0.2, 1.9])
def test_gradients_are_the_numerical_ones(size: float, beta: float) -> None:
    q, k, v = (x[:1, :6].requires_grad_() for x in problem(6, size=size))
    assert torch.autograd.gradcheck(
        lambda *x: free_energy_read(x[0], x[1], x[2], x[3], True),
        (q, k, v, betas(beta).requires_grad_()),
        fast_mode=True,
        atol=1e-6,
        rtol=1e-4,
    )
