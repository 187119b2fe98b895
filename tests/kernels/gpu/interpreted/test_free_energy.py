"""The free-energy flash attention against rows in fp64: values, gradients, extremes, and no effect of later tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.free_energy import free_energy_read as on_cpu
from kernels.gpu.free_energy import free_energy_read
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.tolerances import FP32, FP32_SCAN, PREFIX

pytestmark = pytest.mark.slow

BF16 = 2**-7  # a rounding or two of its eight digits


def problem(
    tokens: int,
    key: int = 8,
    value: int = 4,
    size: float = 1.0,
    seed: int = 0,
    rows: int | None = None,
    batch: int = 1,
    heads: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (batch, rows or tokens, heads, key), (batch, tokens, heads, key), (batch, tokens, heads, value)
    q, k, v = (torch.randn(*shape, generator=draw) for shape in shapes)
    return q, k, size * v


def betas(value: float, width: int = 4, heads: int = 1) -> Tensor:
    return torch.full((heads, width), value)


def by_rows(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, causal: bool, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """All rows at once in fp64; by the mean of expm1 where every |βv| is small, because log-sum-exp would cancel."""
    q, k, v, beta = (x.double() for x in (q, k, v, beta))
    scores = torch.einsum("bshk,bthk->bhst", q, k) * q.shape[-1] ** -0.5
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool)
    seen = (seen.tril() if causal else seen)[None, None]
    if mask is not None:
        seen = seen & mask[:, None, None]
        seen = seen | ~seen.any(-1, keepdim=True)  # rows that see no key have no meaning
    log_p = scores.masked_fill(~seen, -torch.inf).log_softmax(-1)
    u = (v * beta).transpose(1, 2)
    mean = torch.einsum("bhst,bhtd->bhsd", log_p.exp(), u.clamp(-1.0, 1.0).expm1()).log1p()
    full = (log_p[..., None] + u[:, :, None]).logsumexp(-2)
    F = torch.where(u.abs().amax((0, 2), keepdim=True) < 1e-2, mean, full).transpose(1, 2) / beta
    return torch.einsum("bhst,bthd->bshd", log_p.exp(), v), F


def assert_right(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    causal: bool,
    mask: Tensor | None = None,
    upstream: float = 1.0,
    together: bool = True,
    fraction: float = FP32,
    gradient_fraction: float = 4 * FP32_SCAN,
) -> None:
    """μ, F and all gradients are those of the rows in fp64; rows that see no key are left out.

    `together`: gradients of the sum of both results, otherwise of each one.
    """
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v, beta)]
    wide = [x.detach().double().requires_grad_() for x in (q, k, v, beta)]
    got = free_energy_read(leaves[0], leaves[1], leaves[2], leaves[3], causal, mask)
    wanted = by_rows(wide[0], wide[1], wide[2], wide[3], causal, mask)
    sees = (
        torch.ones(q.shape[:2])
        if mask is None
        else (mask.cumsum(1) > 0 if causal else mask.any(1, keepdim=True).expand(q.shape[:2]))
    )
    rows = sees.bool()[..., None, None]
    for name, a, b in zip(("mean", "free energy"), got, wanted, strict=True):
        assert a.dtype == v.dtype
        assert_close(name, a * rows, torch.where(rows, b, 0.0), fraction)
    draw = torch.Generator().manual_seed(1)
    weights = [upstream * torch.randn(got[0].shape, generator=draw).to(v.dtype) * rows for _ in range(2)]
    for chosen in [(1.0, 1.0)] if together else [(1.0, 0.0), (0.0, 1.0)]:
        given = [w * c for w, c in zip(weights, chosen, strict=True)]
        found = torch.autograd.grad(got, leaves, given, retain_graph=True)
        right = torch.autograd.grad(wanted, wide, [w.double() for w in given], retain_graph=True)
        # β's gradient is a difference of two sums of this size
        least = 0.0, 0.0, 0.0, float(v.abs().max() * given[1].abs().sum((0, 1)).max() / beta.min())
        for name, x, y, size in zip("qkvβ", found, right, least, strict=True):
            assert_close(f"gradient in {name} of {chosen}", x, y, gradient_fraction, size)


@pytest.mark.parametrize(
    ("tokens", "causal"),
    [(33, True), *((t, c) for t in (1, 64, 65, 256) for c in (True, False))],
)
def test_values_in_range_give_the_formula(tokens: int, causal: bool) -> None:
    assert_right(*problem(tokens), betas(1.9), causal, together=tokens in (1, 64, 256))


@pytest.mark.parametrize(("tokens", "causal"), [(1, True), (40, True), (40, False)])
def test_values_out_of_range_give_the_formula_key_by_key(tokens: int, causal: bool) -> None:
    assert_right(*problem(tokens, size=60.0), betas(1.9), causal)


@pytest.mark.parametrize("causal", [True, False])
def test_values_out_of_range_and_close_together_give_the_formula_by_tiles(causal: bool) -> None:
    q, k, v = problem(100)
    assert_right(q, k, v + 40.0, betas(1.9), causal, together=False)


def test_heads_and_sequences_do_not_mix() -> None:
    q, k, v = problem(20, batch=2, heads=2)
    beta = torch.tensor([[0.1, 0.7, 1.5, 3.0], [2.0, 0.3, 1.0, 0.4]])
    assert_right(q, k, v, beta, True)
    v[1, :, 0] *= 60.0  # exact for one head of one sequence
    assert_right(q, k, v, beta, True)


@pytest.mark.parametrize(("key", "value", "size"), [(16, 3, 1.0), (5, 20, 1.0), (5, 20, 60.0), (5, 67, 1.0)])
def test_widths_need_not_be_powers_of_two(key: int, value: int, size: float) -> None:
    assert_right(*problem(20, key, value, size), betas(0.7, value), True)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [1.0, 60.0], ids=["bounded", "exact"])
def test_masked_keys_carry_no_weight_anywhere(size: float, causal: bool) -> None:
    q, k, v = problem(40, size=size, batch=2 if size == 1.0 else 1)
    mask = torch.rand(len(q), 40, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[0, :33] = False  # a whole tile hidden, and rows that see nothing
    assert_right(q, k, torch.where(mask[..., None, None], v, 1e3), betas(1.9), causal, mask)


def test_fewer_queries_than_keys_see_them_all() -> None:
    assert_right(*problem(40, rows=3), betas(1.9), False)
    assert_right(*problem(3, rows=40), betas(1.9), False)


@pytest.mark.parametrize("beta", [1e-6, 0.3])
@pytest.mark.parametrize("late", [1.0, 3e3], ids=["bounded", "exact at the end"])
def test_small_beta_keeps_its_digits(beta: float, late: float) -> None:
    q, k, v = problem(50)
    v[:, 40:] *= late / beta if late > 1.0 else 1.0
    leaves, wide = (
        ([x.to(t).requires_grad_() for x in (q, k, v, betas(beta))]) for t in (torch.float32, torch.float64)
    )
    got = free_energy_read(leaves[0], leaves[1], leaves[2], leaves[3], True)[1]
    wanted = by_rows_apart(*wide)
    assert_close("before", got[:, :40], wanted[:, :40], FP32)
    assert_close("after", got, wanted, FP32)
    gradients = [torch.autograd.grad(F[:, :40].sum(), x[:3]) for F, x in ((got, leaves), (wanted, wide))]
    for a, b in zip(*gradients, strict=True):
        assert_close("gradient", a[:, :40], b[:, :40], 4 * FP32_SCAN)


def by_rows_apart(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """F, row by row, in the form that is exact for the values that the row sees."""
    rows = [by_rows(q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1], beta, False)[1] for t in range(q.shape[1])]
    return torch.cat(rows, 1)


@pytest.mark.parametrize("jump", [80.0, 400.0])
@pytest.mark.parametrize(("tokens", "at"), [(40, 20), (130, 96)], ids=["inside a block", "between blocks"])
def test_a_jump_leaves_finite_right_gradients_under_a_huge_upstream(jump: float, tokens: int, at: int) -> None:
    q, k, v = problem(tokens)
    v = v + jump / 2 * torch.where(torch.arange(tokens) < at, -1.0, 1.0)[:, None, None]
    assert_right(q, k, v, betas(1.0), True, upstream=65_536.0)


@pytest.mark.parametrize("causal", [True, False])
def test_a_large_value_under_a_tiny_weight_decides(causal: bool) -> None:
    """The largest value has a weight of e^{−100}, and still decides."""
    q, k, v = problem(40)
    q[...], k[...] = 10.0, 0.0
    k[:, 35] = -100.0 / (10.0 * 8**0.5)
    v[:, 35] = 150.0
    assert_right(q, k, v, betas(1.0), causal)


@pytest.mark.parametrize("size", [1.0, 60.0], ids=["bounded", "exact"])
@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_later_tokens_change_nothing_before_them(size: float, factor: float) -> None:
    """In the tile where they are, and in tiles before it."""
    first = problem(50, size=size)
    others = problem(50, size=size, seed=1)
    q, k, v = (torch.cat((x[:, :40], factor * y[:, 40:]), 1) for x, y in zip(first, others, strict=True))
    for a, b in zip(
        free_energy_read(*first, betas(1.9), True), free_energy_read(q, k, v, betas(1.9), True), strict=True
    ):
        assert_close("before", a[:, :40], b[:, :40].double(), PREFIX)
        if size * factor == 1.0:
            assert torch.equal(a[:, :40], b[:, :40])


@pytest.mark.parametrize("size", [1.0, 60.0], ids=["bounded", "exact"])
def test_half_precision_is_right_to_its_digits(size: float) -> None:
    q, k, v = (x.bfloat16() for x in problem(40, size=size))
    assert_right(q, k, v, betas(1.9), True, fraction=BF16, gradient_fraction=2 * BF16)


def test_both_implementations_agree() -> None:
    q, k, v = problem(50, size=8.0)
    for a, b in zip(free_energy_read(q, k, v, betas(1.9), True), on_cpu(q, k, v, betas(1.9), True), strict=True):
        assert_close("Triton", a, b.double(), 2 * FP32)
