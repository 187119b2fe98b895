"""The norm and the gated SiLU, compiled and not, against loops in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernels.rows import gated_silu, rms_norm
from tests.tolerances import FP32, FP64

SHAPES = [(1, 1), (3, 5), (2, 33, 96), (130, 7)]
EPS = 1e-6


pytestmark = pytest.mark.usefixtures("form")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_by_loop(x: Tensor, gain: Tensor) -> Tensor:
    rows = [[v / math.sqrt(sum(u * u for u in row) / len(row) + EPS) for v in row] for row in x.reshape(-1, x.shape[-1]).tolist()]
    return torch.tensor(rows, dtype=torch.float64).view(x.shape) * gain


def silu_by_loop(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    rows = [[a / (1 + math.exp(-a)) * b for a, b in zip(row[:half], row[half:], strict=True)] for row in x.reshape(-1, 2 * half).tolist()]
    return torch.tensor(rows, dtype=torch.float64).view(*x.shape[:-1], half)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, FP64), (torch.float32, FP32)])
def test_they_are_their_formulas(shape: tuple[int, ...], dtype: torch.dtype, share: float) -> None:
    x, gain = normal(*shape).to(dtype), normal(shape[-1], seed=1).to(dtype)
    both = normal(*shape[:-1], 2 * shape[-1]).to(dtype)
    for got, wanted in ((rms_norm(x, gain, EPS), norm_by_loop(x, gain)), (gated_silu(both), silu_by_loop(both))):
        assert got.dtype == dtype
        assert float((got - wanted).abs().max()) <= share * float(wanted.abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_their_gradients_are_the_numerical_ones(shape: tuple[int, ...]) -> None:
    x, gain = normal(*shape).requires_grad_(), normal(shape[-1], seed=1).requires_grad_()
    both = normal(*shape[:-1], 2 * shape[-1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: rms_norm(x, g, EPS), (x, gain), fast_mode=True)
    assert torch.autograd.gradcheck(gated_silu, (both,), fast_mode=True)


def test_rows_apart_in_memory_are_read_as_they_are() -> None:
    x = normal(4, 6, 8).transpose(0, 1)
    gain = normal(8, seed=1)
    assert float((rms_norm(x, gain, EPS) - norm_by_loop(x, gain)).abs().max()) <= FP64
    assert float((gated_silu(x) - silu_by_loop(x)).abs().max()) <= FP64


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e4, 1e15])
def test_extremes_are_finite_in_value_and_gradient(size: float) -> None:
    x = (size * normal(5, 12)).float().requires_grad_()
    for y in (rms_norm(x, torch.ones(12), EPS), gated_silu(x)):
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert bool(y.isfinite().all())
        assert bool(gradient.isfinite().all())


def test_what_is_not_a_number_stays_visible() -> None:
    """A run that diverges has to see it."""
    x = torch.ones(2, 4)
    x[0, 1] = torch.nan
    assert not bool(rms_norm(x, torch.ones(4), EPS)[0].isfinite().all())
    assert not bool(gated_silu(x)[0].isfinite().all())


def test_no_rows_give_no_rows() -> None:
    assert rms_norm(torch.ones(0, 4), torch.ones(4), EPS).shape == (0, 4)
    assert gated_silu(torch.ones(0, 4)).shape == (0, 2)
