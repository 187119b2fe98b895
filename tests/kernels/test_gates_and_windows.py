"""Softmax reads with gates and with a window, in C++ and in PyTorch, against the formula in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.attention import softmax_read
from kernels.free_energy import free_energy_read
from tests.kernels.test_attention import apart
from tests.tolerances import FP32, FP32_SCAN, FP64

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")
B, H, K, D = 2, 2, 6, 4
both_ways = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(tokens: int) -> list[Tensor]:
    """q, k, v and log f."""
    q, k, v = (normal(B, tokens, H, width, seed=i) for i, width in enumerate((K, K, D)))
    return [q, k, v, torch.nn.functional.logsigmoid(normal(B, tokens, H, seed=3))]


def log_weights(
    q: Tensor, k: Tensor, log_f: Tensor | None, causal: bool, window: int = 0, mask: Tensor | None = None
) -> Tensor:
    """`[B, H, T, T]`, the gates between two tokens one after another."""
    T = q.shape[1]
    scores = torch.einsum("bshk,bthk->bhst", q, k) / K**0.5
    t = torch.arange(T)
    if log_f is not None:
        later, earlier = torch.maximum(t[:, None], t), torch.minimum(t[:, None], t)
        between = (t > earlier[..., None]) & (t <= later[..., None])  # [T, T, gates]
        scores = scores + torch.einsum("bnh,stn->bhst", log_f, between.double())
    sees = (t[:, None] >= t) if causal else torch.ones(T, T, dtype=torch.bool)
    if window:
        sees = sees & ((t[:, None] - t).abs() < window)
    sees = sees[None, None] if mask is None else sees & mask[:, None, None]
    return scores.masked_fill(~sees, -torch.inf).log_softmax(-1)


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    upstream = [normal(*y.shape, seed=9).to(y.dtype) for y in outputs]
    return torch.autograd.grad(outputs, inputs, upstream)


def all_close(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float) -> bool:
    return all(
        apart(mine, theirs) < tolerance
        for mine, theirs in zip(found, wanted, strict=True)
        if float(theirs.detach().abs().max()) > 1e-12
    )


@both_ways
@pytest.mark.parametrize("tokens", [1, 2, 63, 65, 200, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_gates_decay_the_scores_between_two_tokens(causal: bool, tokens: int, dtype: torch.dtype) -> None:
    inputs = [x.to(dtype).requires_grad_() for x in problem(tokens)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found = softmax_read(inputs[0], inputs[1], inputs[2], causal, log_f_BTH=inputs[3])
    weights = log_weights(exact[0], exact[1], exact[3], causal).exp()
    wanted = torch.einsum("bhst,bthd->bshd", weights, exact[2])
    tolerance = FP64 if dtype == torch.float64 else FP32
    assert apart(found, wanted) < tolerance
    assert all_close(gradients((found,), inputs), gradients((wanted,), exact), 10 * tolerance)


@both_ways
def test_masked_tokens_have_no_weight_and_do_not_decay(causal: bool) -> None:
    q, k, v, log_f = problem(40)
    mask = torch.arange(40).expand(B, 40) >= torch.tensor([[0], [7]])
    log_f = log_f.masked_fill(~mask[..., None], 0.0)
    found = softmax_read(q, k, v, causal, mask, log_f_BTH=log_f)
    wanted = torch.einsum("bhst,bthd->bshd", log_weights(q, k, log_f, causal, mask=mask).exp().nan_to_num(), v)
    assert apart(found * mask[..., None, None], wanted * mask[..., None, None]) < FP64


@both_ways
@pytest.mark.parametrize("window", [1, 5, 64, 100, 1000])
@pytest.mark.parametrize("tokens", [1, 70, 300, pytest.param(1200, marks=pytest.mark.slow)])
def test_a_row_sees_the_tokens_of_its_window(causal: bool, window: int, tokens: int) -> None:
    inputs = [x.requires_grad_() for x in problem(tokens)[:3]]
    q, k, v = inputs
    found = softmax_read(q, k, v, causal, window=window)
    wanted = torch.einsum("bhst,bthd->bshd", log_weights(q, k, None, causal, window).exp(), v)
    assert apart(found, wanted) < FP64
    if tokens > 1:
        assert all_close(gradients((found,), inputs), gradients((wanted,), inputs), 10 * FP64)


def test_gates_and_a_window_apply_together() -> None:
    q, k, v, log_f = problem(150)
    found = softmax_read(q, k, v, True, log_f_BTH=log_f, window=20)
    wanted = torch.einsum("bhst,bthd->bshd", log_weights(q, k, log_f, True, 20).exp(), v)
    assert apart(found, wanted) < FP64


@both_ways
@pytest.mark.parametrize("size", [1.0, 60.0, 2000.0], ids=["in range", "in the range of fp64", "beyond it"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_free_energies_under_gates_are_the_formula(causal: bool, size: float, dtype: torch.dtype) -> None:
    q, k, v, log_f = problem(70)
    v[0, :, 0] *= size / v[0, :, 0].abs().max()  # one head of one sequence leaves the range
    inputs = [x.to(dtype).requires_grad_() for x in (q, k, v, log_f, 1 + normal(H, D, seed=4).abs())]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found = free_energy_read(inputs[0], inputs[1], inputs[2], inputs[4], causal, log_f_BTH=inputs[3])
    log_p = log_weights(exact[0], exact[1], exact[3], causal)
    mean = torch.einsum("bhst,bthd->bshd", log_p.exp(), exact[2])
    u = (exact[2] * exact[4]).transpose(1, 2)[:, :, None]
    free = (log_p[..., None] + u).logsumexp(3).transpose(1, 2) / exact[4]
    tolerance = FP64 if dtype == torch.float64 else FP32_SCAN
    assert all_close(found, (mean, free), tolerance)
    assert all_close(gradients(found, inputs), gradients((mean, free), exact), 10 * tolerance)


@pytest.mark.parametrize("value", [50.0, 1000.0], ids=["in the range of fp64", "beyond it"])
def test_a_head_out_of_range_changes_no_other_where_there_are_more_rows_than_keys(value: float) -> None:
    q, k, v = normal(1, 6, H, K, seed=0).float(), normal(1, 3, H, K, seed=1).float(), normal(1, 3, H, D, seed=2).float()
    beta = torch.ones(H, D)
    before = free_energy_read(q, k, v, beta, causal=False)[1]
    large = v.clone()
    large[:, 1, 0, 0] = value
    after = free_energy_read(q, k, large, beta, causal=False)[1]
    assert torch.allclose(after[:, :, 1], before[:, :, 1], rtol=0, atol=1e-6)
    log_p = (torch.einsum("bshk,bthk->bhst", q, k) / K**0.5).log_softmax(-1)
    wanted = (log_p[..., None] + large.transpose(1, 2)[:, :, None]).logsumexp(3).transpose(1, 2)
    assert torch.allclose(after, wanted, rtol=1e-5, atol=1e-5)


def test_nan_stays_visible_within_the_window() -> None:
    q, k, v = (x.float() for x in problem(40)[:3])
    k[0, 10] = torch.nan
    shown = softmax_read(q, k, v, True, window=5)[0].isnan().all(-1).all(-1)
    assert bool(shown[10:15].all())
