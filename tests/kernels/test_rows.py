"""The norm, the SwiGLU and the rotation, in C++ and in PyTorch, against loops in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backbones.mixers.rotary import rotate
from kernels.rows import feed_forward, rms_norm, rotate_pairs, swiglu
from tests.tolerances import FP32, FP64, fp32_sum

SHAPES = [(1, 1), (3, 5), (2, 33, 96), (130, 7)]
EPS = 1e-6


pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_by_loop(x: Tensor, gain: Tensor) -> Tensor:
    rows = [
        [v / math.sqrt(sum(u * u for u in row) / len(row) + EPS) for v in row]
        for row in x.reshape(-1, x.shape[-1]).tolist()
    ]
    return torch.tensor(rows, dtype=torch.float64).view(x.shape) * gain


def swiglu_by_loop(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    width, made = down.shape[1], []
    for row in x.reshape(-1, x.shape[-1]).double():
        z = [float(row @ u) for u in up.double()]
        inner = [a / (1 + math.exp(-a)) * b for a, b in zip(z[:width], z[width:], strict=True)]
        made.append(down.double() @ torch.tensor(inner, dtype=torch.float64))
    return torch.stack(made).view(x.shape)


def weights(dim: int, width: int) -> tuple[Tensor, Tensor]:
    return normal(2 * width, dim, seed=2) / dim**0.5, normal(dim, width, seed=3) / width**0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "fraction"), [(torch.float64, FP64), (torch.float32, FP32)])
def test_the_norm_is_its_formula(shape: tuple[int, ...], dtype: torch.dtype, fraction: float) -> None:
    x, gain = normal(*shape).to(dtype), normal(shape[-1], seed=1).to(dtype)
    got, wanted = rms_norm(x, gain, EPS), norm_by_loop(x, gain)
    assert got.dtype == dtype
    assert float((got - wanted).abs().max()) <= fraction * float(wanted.abs().max())


@pytest.mark.parametrize(("rows", "dim", "width"), [((1,), 3, 2), ((3, 50), 8, 20), ((700,), 4, 300), ((33,), 5, 5000)])
@pytest.mark.parametrize(("dtype", "fraction"), [(torch.float64, FP64), (torch.float32, FP32)])
def test_the_swiglu_is_its_formula_at_any_size(
    rows: tuple[int, ...], dim: int, width: int, dtype: torch.dtype, fraction: float
) -> None:
    inputs = [x.to(dtype).requires_grad_() for x in (normal(*rows, dim), *weights(dim, width))]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    gate, up = (wide[0] @ wide[1].T).chunk(2, dim=-1)
    got, wanted = swiglu(*inputs), (gate * gate.sigmoid() * up) @ wide[2].T
    assert got.dtype == dtype
    assert float((got - wanted).detach().abs().max()) <= fraction * float(wanted.detach().abs().max())
    upstream = normal(*rows, dim, seed=4)
    pairs = zip(
        torch.autograd.grad(got, inputs, upstream.to(dtype)), torch.autograd.grad(wanted, wide, upstream), strict=True
    )
    allowed = (
        fraction if dtype == torch.float64 else fp32_sum(2 * width)
    )  # the gradient of x sums over both halves of the inner width
    assert all(float((mine - theirs).abs().max()) <= allowed * float(theirs.abs().max()) for mine, theirs in pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_norms_gradients_are_the_numerical_ones(shape: tuple[int, ...]) -> None:
    x, gain = normal(*shape).requires_grad_(), normal(shape[-1], seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: rms_norm(x, g, EPS), (x, gain), fast_mode=True)


def test_rows_that_are_not_adjacent_in_memory_are_read_right() -> None:
    x, (up, down) = normal(4, 6, 8).transpose(0, 1), weights(8, 5)
    gain = normal(8, seed=1)
    assert float((rms_norm(x, gain, EPS) - norm_by_loop(x, gain)).abs().max()) <= FP64
    assert (
        float((swiglu(x, up, down) - swiglu_by_loop(x, up, down)).abs().max()) <= FP64
    )  # a loop for the formula itself


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e4, 1e15])
def test_extremes_are_finite_in_value_and_gradient(size: float) -> None:
    x, (up, down) = (size * normal(5, 12)).float().requires_grad_(), (w.float() for w in weights(12, 6))
    for y in (rms_norm(x, torch.ones(12), EPS), swiglu(x, up, down)):
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert bool(y.isfinite().all())
        assert bool(gradient.isfinite().all())


def test_nan_stays_visible() -> None:
    """A run that diverges must show it."""
    x, (up, down) = torch.ones(2, 4), (w.float() for w in weights(4, 3))
    x[0, 1] = torch.nan
    assert not bool(rms_norm(x, torch.ones(4), EPS)[0].isfinite().all())
    assert not bool(swiglu(x, up, down)[0].isfinite().all())
    assert bool(rotate(x.view(1, 2, 1, 4))[0, 0].isnan().any())


def test_empty_inputs_give_empty_results() -> None:
    assert rms_norm(torch.ones(0, 4), torch.ones(4), EPS).shape == (0, 4)
    assert swiglu(torch.ones(0, 4), torch.ones(6, 4), torch.ones(4, 3)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_rotations_of_any_layout_are_the_formula_and_rotate_gradients_back(dtype: torch.dtype) -> None:
    packed = normal(2, 70, 3 * 24).to(dtype)
    part, heads_first = packed.chunk(3, dim=-1)[1].unflatten(-1, (3, 8)), normal(2, 3, 70, 8).to(dtype).transpose(1, 2)
    for x in (part, heads_first, packed.unflatten(-1, (9, 8))):
        x = x.detach().requires_grad_()
        position, wanted = (
            torch.arange(70.0, dtype=torch.float64)[:, None] + 5,
            torch.empty_like(x, dtype=torch.float64),
        )
        angle = position * 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        for pair in range(4):
            a, b = x.detach().double()[..., 2 * pair], x.detach().double()[..., 2 * pair + 1]
            cos, sin = angle[:, pair].cos()[:, None], angle[:, pair].sin()[:, None]
            wanted[..., 2 * pair], wanted[..., 2 * pair + 1] = a * cos - b * sin, a * sin + b * cos
        got = rotate(x, offset=5)
        (turned,) = rotate_pairs((x,), angle.cos()[:, None].to(dtype), angle.sin()[:, None].to(dtype))
        assert torch.equal(turned, got)
        assert float((got - wanted).detach().abs().max()) <= (FP64 if dtype == torch.float64 else FP32) * float(
            wanted.abs().max()
        )
        (back,) = torch.autograd.grad(got, x, got.detach())
        assert torch.allclose(back, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "dim", "width"), [((1,), 3, 2), ((3, 50), 8, 20), ((700,), 4, 300)])
def test_the_rest_of_a_block_is_its_formula_with_its_gradients(rows: tuple[int, ...], dim: int, width: int) -> None:
    x, m, gain = normal(*rows, dim), normal(*rows, dim, seed=1), normal(dim, seed=4)
    up, down = weights(dim, width)
    h = x + m
    wanted = h + swiglu_by_loop(norm_by_loop(h, gain), up, down)
    assert float((feed_forward(x, m, gain, up, down, EPS) - wanted).abs().max()) <= FP64 * float(wanted.abs().max())
    leaves = [t.requires_grad_() for t in (x, m, gain, up, down)]
    assert torch.autograd.gradcheck(lambda x, m, g, u, d: feed_forward(x, m, g, u, d, EPS), leaves, fast_mode=True)


def test_the_rest_of_a_block_takes_any_layout_of_its_gradient_and_no_tokens() -> None:
    x, m, gain = (t.float().requires_grad_() for t in (normal(3, 50, 8), normal(3, 50, 8, seed=1), normal(8, seed=4)))
    up, down = (t.float().requires_grad_() for t in weights(8, 20))
    leaves = (x, m, gain, up, down)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    h = wide[0] + wide[1]
    norm = h / (h.square().mean(-1, keepdim=True) + EPS).sqrt() * wide[2]
    gate, values = (norm @ wide[3].T).chunk(2, -1)
    expected = h + (gate * gate.sigmoid() * values) @ wide[4].T
    found = feed_forward(*leaves, EPS)
    upstream = normal(50, 3, 8, seed=5)  # neither contiguous nor, summed over, dense
    for weight in (upstream.transpose(0, 1), upstream[:1].transpose(0, 1).expand(3, 50, 8)):
        got = torch.autograd.grad((found * weight.float()).sum(), leaves, retain_graph=True)
        wanted = torch.autograd.grad((expected * weight).sum(), wide, retain_graph=True)
        for a, b in zip(got, wanted, strict=True):
            assert float((a - b).abs().max()) <= 10 * FP32 * float(b.abs().max())
    broadcast = feed_forward(x, m[:1], gain, up, down, EPS)
    assert float((broadcast - feed_forward(x, m[:1].expand(3, 50, 8), gain, up, down, EPS)).detach().abs().max()) < 1e-5
    assert feed_forward(x[:0], m[:0], gain, up, down, EPS).shape == (0, 50, 8)


def test_the_rest_of_a_block_under_autocast_is_the_formula_in_half_precision() -> None:
    x, m, gain = (t.float() for t in (normal(3, 5, 8), normal(3, 5, 8, seed=1), normal(8, seed=4)))
    up, down = (t.float() for t in weights(8, 20))
    with torch.autocast("cpu", torch.bfloat16):
        found = feed_forward(x, m, gain, up, down, EPS)
        wanted = x + m + swiglu(rms_norm(x + m, gain, EPS), up, down)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, feed_forward(x, m, gain, up, down, EPS))
