"""Blockwise lag mixing equals loops over positions, in value and gradient, for any length, block, layout and mask."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.cpu.hyper import PARTS
from kernels.cpu.hyper import ROWS as COMPILED_ROWS
from kernels.cpu.library import products
from kernels.cpu.sizes import SIZES
from kernels.hyper import lag_mixing
from kernels.hyper.lag_mixing import ROWS, LagMixing, lag_mix
from kernels.numerics import lag_layout
from kernels.numerics.lag_layout import Layout
from tests.kernels.hyper_reference import lag_mix_by_loops
from tests.kernels.memory import LargestTensor
from tests.tolerances import FP32_SCAN, FP64


@pytest.fixture(params=["c++", "pytorch"], autouse=True)
def cpp_or_pytorch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs every test twice: in C++, and as on a machine without a compiler; the other implementation must not run."""
    if request.param == "pytorch":
        monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
        return "pytorch"
    request.getfixturevalue("compiled_kernels")
    assert products() is not None
    monkeypatch.setattr(lag_mixing, "_LagMix", None)
    return "c++"


@dataclass
class Problem:
    q: Tensor
    k: Tensor
    v: Tensor
    before: list[LagMixing | None]
    after: LagMixing | None
    layout: Layout
    mask: Tensor | None = None

    def leaves(self) -> list[Tensor]:
        mixings = [m for m in (*self.before, self.after) if m is not None]
        return [self.q, self.k, self.v, *(t for m in mixings for t in m)]


def problem(
    tokens: int,
    *,
    sets: int = 1,
    causal: bool = True,
    by_lag: bool = True,
    mixed: tuple[bool, bool] = (True, True),
    length: int | None = None,
    heads: int = 2,
    batch: int = 2,
    width: int = 3,
    values: int = 4,
    rank: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    draw = torch.Generator().manual_seed(seed)
    layout = Layout(causal, by_lag, length or tokens)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_()

    def mixing() -> LagMixing:
        """Small tables keep the problem well conditioned: only the order of summation makes a difference."""
        L = layout.table
        tables = (
            random(heads, L, rank, scale=L**-0.5),
            random(heads, L, rank, scale=L**-0.5),
            random(heads, L, scale=0.3),
        )
        return LagMixing(*tables, random(heads, batch, tokens, rank))

    q, k = (random(sets, heads, batch, tokens, width) for _ in range(2))
    v = random(heads, batch, tokens, values)
    before = [mixing() if mixed[0] else None for _ in range(sets)]
    return Problem(q, k, v, before, mixing() if mixed[1] else None, layout)


def blockwise(p: Problem, rows: int) -> Tensor:
    return lag_mix(p.q, p.k, p.v, p.before, p.after, p.layout, p.mask, rows=rows)


def by_loops(p: Problem) -> Tensor:
    return lag_mix_by_loops(p.q, p.k, p.v, p.before, p.after, p.layout, p.mask)


def assert_same(p: Problem, rows: int) -> None:
    fast, slow = blockwise(p, rows), by_loops(p)
    weight = torch.randn(slow.shape, generator=torch.Generator().manual_seed(9), dtype=slow.dtype)
    if p.mask is not None:
        weight = weight * p.mask[None, :, :, None]
        fast, slow = fast * p.mask[None, :, :, None], slow * p.mask[None, :, :, None]
    gradients = [torch.autograd.grad((y * weight).sum(), p.leaves()) for y in (fast, slow)]
    for name, a, b in zip(
        ["output", *(f"gradient {i}" for i in range(99))], [fast, *gradients[0]], [slow, *gradients[1]], strict=False
    ):
        error, size = float((a - b).detach().abs().max()), float(b.detach().abs().max())
        assert error <= FP64 * max(size, 1.0), f"{name} is off by {error:.2g}, its largest entry is {size:.2g}"


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 11),
    spare=st.integers(0, 3),
    rows=st.sampled_from([1, 2, 4, 32]),
    sets=st.sampled_from([1, 2]),
    causal=st.booleans(),
    by_lag=st.booleans(),
    mixed=st.sampled_from([(True, True), (True, False), (False, True), (False, False)]),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_blocks_equal_loops_in_value_and_every_gradient(
    tokens: int,
    spare: int,
    rows: int,
    sets: int,
    causal: bool,
    by_lag: bool,
    mixed: tuple[bool, bool],
    padding: int,
    seed: int,
) -> None:
    p = problem(tokens, sets=sets, causal=causal, by_lag=by_lag, mixed=mixed, length=tokens + spare, seed=seed)
    if padding:
        p.mask = torch.ones(2, tokens, dtype=torch.bool)
        p.mask[0, : min(padding, tokens - 1)] = False
    assert_same(p, rows)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_real_block_size_is_right_at_its_edges(spare: int, causal: bool, cpp_or_pytorch: str) -> None:
    rows = ROWS if cpp_or_pytorch == "pytorch" else COMPILED_ROWS
    assert_same(problem(rows + spare, sets=2, causal=causal, heads=1, batch=1), rows)


@pytest.mark.parametrize("rank", [1, 3, 4, 7, 16, 17])
def test_any_rank_is_right(rank: int, cpp_or_pytorch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rank > SIZES.max_rank:
        monkeypatch.undo()  # PyTorch takes these
    assert_same(problem(6, sets=2, rank=rank, heads=1, batch=1), rows=4)


def test_mixings_of_different_ranks_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # PyTorch takes these
    p = problem(6, sets=2, heads=1, batch=1)
    p.after = problem(6, rank=3, heads=1, batch=1, seed=1).after
    assert_same(p, rows=4)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_a_long_odd_length_is_right(causal: bool) -> None:
    assert_same(problem(257, sets=2, causal=causal, heads=1, batch=1), rows=ROWS)


def test_uninitialised_memory_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_layout, "empty", lambda shape, like: like.new_full(shape, float("nan")))
    for causal in (True, False):
        for by_lag in (True, False):
            for mixed in ((True, True), (False, False)):
                assert_same(problem(9, sets=2, causal=causal, by_lag=by_lag, mixed=mixed), rows=4)


def test_rows_of_zeros_give_zero_with_finite_gradients() -> None:
    for sets in (1, 2):
        p = problem(5, sets=sets, dtype=torch.float32)
        with torch.no_grad():
            p.q[..., 2, :] = 0.0
        out = blockwise(p, 4)
        assert bool((out[:, :, 2] == 0).all())
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), p.leaves()))


def test_with_two_score_sets_the_sign_of_the_gate_alone_decides_what_is_active() -> None:
    p = problem(7, sets=2, mixed=(True, False), heads=1, batch=1, values=7)
    p.v = torch.eye(7, dtype=torch.float64)[None, None].requires_grad_()  # the output is the row of weights
    out = blockwise(p, 4)
    gate = lag_mix_by_loops(p.q[:1], p.k[:1], p.v, p.before[:1], None, p.layout)
    assert bool((out > 0).equal(gate > 0))
    with torch.no_grad():
        p.q[1] *= -50.0
    assert bool((blockwise(p, 4) > 0).equal(out > 0))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_extreme_scores_are_finite_in_value_and_gradient(scale: float) -> None:
    p = problem(33, sets=2, dtype=torch.float32)
    with torch.no_grad():
        p.q *= scale
        p.k *= scale
    out = blockwise(p, 32)
    assert bool(out.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), p.leaves()))


@pytest.mark.parametrize("sets", [1, 2])
def test_single_precision_is_right_and_finite_under_a_large_upstream_gradient(sets: int) -> None:
    exact = problem(150, sets=sets, heads=1, batch=1, width=16, values=8, rank=4)
    single = problem(150, sets=sets, heads=1, batch=1, width=16, values=8, rank=4, dtype=torch.float32)
    out, wanted = blockwise(single, COMPILED_ROWS), blockwise(exact, COMPILED_ROWS)
    upstream = 65536.0 * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad((out * upstream).sum(), single.leaves())
    for a, b in zip(
        (out, *found), (wanted, *torch.autograd.grad((wanted * upstream).sum(), exact.leaves())), strict=True
    ):
        assert float((a - b).detach().abs().max()) <= FP32_SCAN * float(b.detach().abs().max())


def test_threads_change_no_bit(cpp_or_pytorch: str) -> None:
    if cpp_or_pytorch == "pytorch":
        pytest.skip("products of PyTorch do not promise this")
    p = problem(70, sets=2, heads=2, batch=PARTS + 3, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = blockwise(p, COMPILED_ROWS)
            results.append((out, *torch.autograd.grad(out.square().sum(), p.leaves())))
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


def test_nothing_of_size_T_by_T_is_saved_or_made() -> None:
    p = problem(512, heads=1, batch=1, dtype=torch.float32)
    saved: list[int] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with LargestTensor() as made, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        blockwise(p, 32).sum().backward()
    assert max(saved) <= 512 * 4
    assert made.elements <= 32 * (512 + 32)


@pytest.mark.parametrize("by_lag", [True, False])
@pytest.mark.parametrize("last", [1, 5])
def test_the_last_rows_alone_equal_those_of_all_rows(last: int, by_lag: bool) -> None:
    p = problem(9, sets=2, by_lag=by_lag, length=12)
    cut = [m and m._replace(control_HBTr=m.control_HBTr[:, :, -last:]) for m in (*p.before, p.after)]
    some = lag_mix(p.q[..., -last:, :], p.k, p.v, cut[:-1], cut[-1], p.layout, rows=4)
    torch.testing.assert_close(some, blockwise(p, 4)[:, :, -last:], rtol=1e-12, atol=1e-12)
