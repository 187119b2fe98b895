"""Softmax attention, in C++ and in PyTorch, against the formula in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.attention import softmax_read
from tests.tolerances import FP32, FP64

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")
LONG = 1100  # more keys than in two blocks


def problem(
    tokens: int, width: int, dtype: torch.dtype = torch.float64, rows: int | None = None, size: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return (size * torch.randn(*shape, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_()

    return normal(2, rows or tokens, 2, 8), normal(2, tokens, 2, 8), normal(2, tokens, 2, width)


def by_formula(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None = None) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    scores = torch.einsum("bshk,bthk->bhst", q, k) / q.shape[-1] ** 0.5
    sees = torch.ones(scores.shape[-2:], dtype=torch.bool)
    sees = (sees.tril() if causal else sees)[None, None]
    p = scores.masked_fill(~(sees if mask is None else sees & mask[:, None, None]), -torch.inf).softmax(-1).nan_to_num()
    return torch.einsum("bhst,bthw->bshw", p, v)


def apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest wanted entry."""
    return float((got.double() - wanted).detach().abs().max() / wanted.detach().abs().max())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("width", [2, 8, 20], ids=["values narrower", "values as wide", "values wider"])
@pytest.mark.parametrize("masked", [False, True])
def test_values_of_any_width_give_the_formula(causal: bool, width: int, masked: bool) -> None:
    q, k, v = problem(21, width)
    mask = torch.arange(21).expand(2, 21) >= torch.tensor([[0], [4]]) if masked else None
    seen = torch.ones(2, 21) if mask is None or not causal else mask.cummax(1).values.double()
    got = softmax_read(q, k, v, causal, mask)
    assert bool(got.isfinite().all())
    assert apart(got * seen[..., None, None], by_formula(q, k, v, causal, mask) * seen[..., None, None]) < FP64


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Each pair of channels as a complex number, times e^{i angle}."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [2, 21, 600])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_queries_and_keys_are_rotated_before_the_scores(
    causal: bool, tokens: int, masked: bool, dtype: torch.dtype
) -> None:
    q, k, v = problem(tokens, 6, dtype)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
    mask = torch.arange(tokens).expand(2, tokens) >= torch.tensor([[0], [tokens // 3]]) if masked else None
    seen = torch.ones(2, tokens) if mask is None or not causal else mask.cummax(1).values.double()
    turn = angles.cos()[:, None].to(dtype), angles.sin()[:, None].to(dtype)
    got = softmax_read(q, k, v, causal, mask, turn=turn) * seen[..., None, None]
    wanted = by_formula(rotated(q, angles), rotated(k, angles), v, causal, mask) * seen[..., None, None]
    tolerance = FP64 if dtype == torch.float64 else FP32
    assert apart(got, wanted) < tolerance
    pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads, exact = (torch.autograd.grad((y.double() * pull).sum(), (q, k, v)) for y in (got, wanted))
    for grad, other in zip(grads, exact, strict=True):
        assert apart(grad, other.double()) < 2 * tolerance


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [1, 63, 65, 513, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_gradients_are_those_of_the_formula_at_any_length(causal: bool, tokens: int, dtype: torch.dtype) -> None:
    inputs = problem(tokens, 12, dtype)
    got, wanted = softmax_read(*inputs, causal), by_formula(*inputs, causal)
    tolerance = FP64 if dtype == torch.float64 else FP32
    assert apart(got, wanted) < tolerance
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    pairs = zip(
        torch.autograd.grad(got, inputs, upstream.to(dtype)), torch.autograd.grad(wanted, inputs, upstream), strict=True
    )
    for name, (mine, theirs) in zip("qkv", pairs, strict=True):
        if float(theirs.abs().max()) > 1e-12:  # one token: the weights can't change
            assert apart(mine, theirs) < 5 * tolerance, name


@pytest.mark.parametrize("causal", [True, False])
def test_masked_keys_after_the_first_block_change_neither_values_nor_gradients(causal: bool) -> None:
    inputs = problem(LONG, 8)
    mask = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 0] = True
    got, wanted = softmax_read(*inputs, causal, mask), by_formula(*inputs, causal, mask)
    assert apart(got, wanted) < FP64
    both = (torch.autograd.grad(out.square().sum(), inputs) for out in (got, wanted))
    assert all(apart(mine, theirs) < 5 * FP64 for mine, theirs in zip(*both, strict=True))


def test_fewer_queries_than_keys_read_all_of_them() -> None:
    q, k, v = problem(600, 8, rows=3)
    assert apart(softmax_read(q, k, v, causal=False), by_formula(q, k, v, causal=False)) < FP64


def test_huge_scores_leave_finite_gradients() -> None:
    inputs = problem(130, 8, torch.float32, size=60.0)  # scores in the tens of thousands
    got = softmax_read(*inputs, True)
    assert apart(got, by_formula(*inputs, True)) < 1e-4  # the scores themselves are rounded
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(got, inputs, 65_536.0 * torch.ones_like(got)))


def test_the_future_changes_no_bit_of_the_past() -> None:
    q, k, v = (x.detach() for x in problem(LONG, 8, torch.float32))
    before = softmax_read(q, k, v, True)
    for x in (q, k, v):
        x[:, 700:] *= -200.0
    assert torch.equal(softmax_read(q, k, v, True)[:, :700], before[:, :700])


def test_threads_change_no_bit() -> None:
    results, count = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            inputs = problem(200, 12, torch.float32)
            out = softmax_read(*inputs, True)
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    finally:
        torch.set_num_threads(count)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["q", "k", "v"])
def test_nan_stays_visible(which: int) -> None:
    """A run that diverges must show it."""
    q, k, v = (x.detach() for x in problem(40, 8, torch.float32))
    (q, k, v)[which][0, 3] = torch.nan
    assert bool(softmax_read(q, k, v, True)[0, 3].isnan().all())


def test_parts_of_one_projection_are_read_in_place() -> None:
    packed = torch.randn(2, 30, 3 * 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q, k, v = (x.unflatten(-1, (2, 8)) for x in packed.chunk(3, dim=-1))
    wanted = by_formula(q, k, v, True)
    assert apart(softmax_read(q, k, v, True), wanted) < FP64
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))  # heads first in memory
    assert apart(softmax_read(q, k, v, True), wanted) < FP64


@pytest.mark.parametrize(("tokens", "pairs"), [(5, 2), (1, 4), (6, 4)])
def test_a_turn_of_other_tokens_or_channels_is_refused(tokens: int, pairs: int) -> None:
    table = torch.ones(tokens, 1, pairs, dtype=torch.float64)
    with pytest.raises(ValueError, match="do not rotate tensors of 5 tokens and 8 channels"):
        softmax_read(*problem(5, 6), True, turn=(table, table))


@pytest.mark.parametrize("tokens", [1, 3, 8, 15, 16, 17, 31, 33, 49, 64, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_finds_its_largest_score_wherever_it_is(tokens: int, dtype: torch.dtype) -> None:
    """Of all other keys the scores are so much smaller that e to the power of the difference overflows."""
    high = 2000.0 if dtype == torch.float64 else 200.0
    v = torch.randn(tokens, tokens, 1, 3, dtype=dtype)
    k = torch.zeros(tokens, tokens, 1, 1, dtype=dtype)
    k[range(tokens), range(tokens)] = high  # of sequence i, key i has the largest score
    read = softmax_read(torch.ones_like(k), k, v, False, scale=1.0)
    assert torch.equal(read, v[range(tokens), range(tokens)][:, None].expand_as(read))
