"""Blockwise lag mixing by Triton against loops over positions in fp64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.gpu import hyper
from kernels.hyper.lag_mixing import LagMixing
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.kernels.test_hyper import Problem, by_loops, problem
from tests.tolerances import FP32_SCAN

pytestmark = pytest.mark.slow


def single(p: Problem) -> Problem:
    """The same in fp32."""

    def narrow(tensor: Tensor) -> Tensor:
        return tensor.detach().float().requires_grad_()

    def cast(mixing: LagMixing | None) -> LagMixing | None:
        return None if mixing is None else LagMixing(*map(narrow, mixing))

    return Problem(narrow(p.q), narrow(p.k), narrow(p.v), [cast(m) for m in p.before], cast(p.after), p.layout)


def by_triton(p: Problem) -> Tensor:
    return hyper.lag_mix(p.q, p.k, p.v, p.before, p.after, p.layout)


def assert_right(wide: Problem) -> None:
    p = single(wide)
    fast, slow = by_triton(p), by_loops(wide)
    assert_close("output", fast, slow, FP32_SCAN)
    weight = torch.randn(slow.shape, generator=torch.Generator().manual_seed(9), dtype=slow.dtype)
    gradients = [torch.autograd.grad((y * weight).sum(), x.leaves()) for y, x in ((fast, p), (slow, wide))]
    for i, (a, b) in enumerate(zip(*gradients, strict=True)):
        assert_close(f"gradient {i}", a, b, 10 * FP32_SCAN)


MIXED = [(True, True), (True, False), (False, True), (False, False)]


def test_one_block_equals_the_loops() -> None:
    assert_right(problem(7, sets=2, heads=1, batch=1, length=9))


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("mixed", MIXED)
def test_heads_sequences_and_spare_lags_do_not_mix(sets: int, mixed: tuple[bool, bool]) -> None:
    assert_right(problem(9, sets=sets, mixed=mixed, length=11))


@pytest.mark.parametrize("sets", [1, 2])
def test_several_blocks_of_one_program_equal_the_loops(sets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks of rows, the last one incomplete, by two programs: sums and scratch memory carry over."""
    monkeypatch.setattr(hyper, "PROGRAMS", 2)
    assert_right(problem(37, sets=sets, heads=1, batch=1))


@pytest.mark.parametrize("tokens", [1, 32, 50])
def test_lengths_that_do_not_fill_blocks_equal_the_loops(tokens: int) -> None:
    assert_right(problem(tokens, sets=2, heads=1, batch=1))


def test_rows_of_zeros_give_zero_with_finite_gradients() -> None:
    p = single(problem(5, sets=2))
    with torch.no_grad():
        p.q[..., 2, :] = 0.0
    out = by_triton(p)
    assert bool((out[:, :, 2] == 0).all())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), p.leaves()))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_extreme_scores_are_finite_in_value_and_gradient(scale: float) -> None:
    p = single(problem(20, sets=2))
    with torch.no_grad():
        p.q *= scale
        p.k *= scale
    out = by_triton(p)
    assert bool(out.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), p.leaves()))


def test_later_tokens_change_nothing_before_them() -> None:
    p = single(problem(30, heads=1, batch=1))
    before = by_triton(p).detach()
    with torch.no_grad():
        for t in (p.q, p.k, p.v):
            t[..., 20:, :] *= 1e4
    assert torch.equal(by_triton(p)[:, :, :20], before[:, :, :20])
