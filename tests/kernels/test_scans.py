"""The scans and their gradients equal recurrences, token by token in fp64, at any length and for any decay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.channelwise import channelwise_log_read, channelwise_read, running_max
from kernels.linear.sums import decayed_sums
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums
from tests.tolerances import FP32_SCAN, FP64

LENGTHS = [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 257]
some = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(got: Tensor, wanted: Tensor, fraction: float) -> bool:
    return float((got.double() - wanted).abs().max()) <= fraction * float(wanted.abs().max())


def recurrence(a: Tensor, x: Tensor) -> Tensor:
    """`h_t = a_t h_{t−1} + x_t` in fp64."""
    h, rows = torch.zeros_like(x[:, 0]).double(), []
    for t in range(x.shape[1]):
        h = a[:, t].double() * h + x[:, t].double()
        rows.append(h)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
def test_diagonal_scan_is_the_recurrence(tokens: int, reverse: bool) -> None:
    a, x = normal(2, tokens, 130).sigmoid(), normal(2, tokens, 130, seed=1)
    a[0] = 0.0
    a[1, :, 1] = 1.0
    wanted = recurrence(a.flip(1), x.flip(1)).flip(1) if reverse else recurrence(a, x)
    assert close(diagonal_scan(a, x, reverse), wanted, FP64)


@pytest.mark.parametrize("decay", [1e-30, 0.5, 0.99, 0.9999, 1.0])
def test_diagonal_scan_keeps_fp32_digits_over_4096_tokens(decay: float) -> None:
    a = (decay * normal(2, 4096, 4).abs().clamp(max=1.0)).float() if decay == 0.5 else torch.full((2, 4096, 4), decay)
    x = normal(2, 4096, 4, seed=1, dtype=torch.float32)
    assert close(diagonal_scan(a, x), recurrence(a, x), FP32_SCAN)


@pytest.mark.parametrize("tokens", [1, 5, 16, 37])
@pytest.mark.parametrize("reverse", [False, True])
def test_diagonal_scan_has_the_numerical_gradients(tokens: int, reverse: bool) -> None:
    inputs = [normal(2, tokens, 2).sigmoid().requires_grad_(), normal(2, tokens, 2, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, x: diagonal_scan(a, x, reverse), inputs)


def decayed_by_loop(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    S, rows = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[3], dtype=torch.float64), []
    for t in range(q.shape[1]):
        if log_decay is not None:
            S = S * log_decay[:, t].double().exp()[..., None]
        S = S + k[:, t, :, :, None] * v[:, t, :, None, :]
        rows.append((q[:, t, :, :, None] * S).sum(-2))
    return torch.stack(rows, 1)


def decay_of(kind: str, tokens: int, strength: float, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """Mostly weak decays, and a few strong ones."""
    if kind == "none":
        return None
    return -strength * normal(2, tokens, 2, 1 if kind == "one per head" else 4, seed=7, dtype=dtype).abs() ** 5


kinds = pytest.mark.parametrize("kind", ["none", "one per head", "one per channel"])


@kinds
@some
@given(
    tokens=st.sampled_from([*LENGTHS, 7, 8, 9]),
    strength=st.sampled_from([1e-3, 0.1, 10.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_decayed_sums_are_the_recurrence(kind: str, tokens: int, strength: float, seed: int) -> None:
    q, k, v = (normal(2, tokens, 2, w, seed=seed + i) for i, w in enumerate((4, 4, 3)))
    decay = decay_of(kind, tokens, strength)
    assert close(decayed_sums(q, k, v, decay), decayed_by_loop(q, k, v, decay), FP64)


@kinds
def test_decayed_sums_keep_fp32_digits_over_4096_tokens(kind: str) -> None:
    q, k, v = (normal(2, 4096, 2, 4, seed=i, dtype=torch.float32).abs() for i in range(3))
    decay = decay_of(kind, 4096, 0.01, torch.float32)
    assert close(decayed_sums(q, k, v, decay), decayed_by_loop(q, k, v, decay), FP32_SCAN)


@pytest.mark.parametrize("kind", ["one per head", "one per channel"])
def test_strong_decays_forget_completely_and_do_not_disturb_weak_ones(kind: str) -> None:
    """After a strong decay at every token, the far past weighs e^{−500} and less: zero, not a clipped remainder.

    A weak decay after strong ones has its own exact effect.
    """
    tokens, width = 200, 1 if kind == "one per head" else 4
    decay = torch.full((1, tokens, 1, width), -5.0)
    decay[:, 150:] = -1e-3
    q = k = torch.ones(1, tokens, 1, 4)
    v = torch.zeros(1, tokens, 1, 1)
    v[:, 0] = 1e30
    v[:, 160] = 1.0
    out = decayed_sums(q, k, v, decay)[0, :, 0, 0].double()
    assert bool((out[100:160] == 0).all())
    wanted = 4 * torch.exp(-1e-3 * torch.arange(40, dtype=torch.float64))
    assert close(out[160:], wanted, 1e-6)


@kinds
@pytest.mark.parametrize("tokens", [5, 70])
def test_decayed_sums_have_the_numerical_gradients(kind: str, tokens: int) -> None:
    q, k, v = (normal(1, tokens, 2, w, seed=i).requires_grad_() for i, w in enumerate((4, 4, 3)))
    decay = decay_of(kind, tokens, 1.0)
    # away from 0, the largest log-decay
    inputs = [q, k, v] if decay is None else [q, k, v, (decay[:1] - 0.01).requires_grad_()]
    assert torch.autograd.gradcheck(decayed_sums, inputs, fast_mode=True)


def selective_by_loop(delta: Tensor, a: Tensor, b: Tensor, c: Tensor, v: Tensor) -> Tensor:
    delta, a, b, c, v = (x.double() for x in (delta, a, b, c, v))
    h, rows = torch.zeros(v.shape[0], v.shape[2], *a.shape, dtype=torch.float64), []
    for t in range(v.shape[1]):
        h = (delta[:, t, None] * a).exp()[:, None] * h + (delta[:, t, None] * v[:, t])[:, :, None] * b[
            :, t, None, :, None
        ]
        rows.append((c[:, t, None, :, None] * h).sum(2))
    return torch.stack(rows, 1)


def dynamics(tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Δ, A, B, C, v."""
    made = [normal(2, tokens, 3).abs(), -3 * normal(4, 3, seed=1).abs(), normal(2, tokens, 4, seed=2).abs()]
    return [x.to(dtype) for x in (*made, normal(2, tokens, 4, seed=3).abs(), normal(2, tokens, 2, 3, seed=4))]


@pytest.mark.parametrize("tokens", LENGTHS)
def test_selective_sums_are_the_recurrence(tokens: int) -> None:
    assert close(selective_sums(*dynamics(tokens)), selective_by_loop(*dynamics(tokens)), FP64)


def test_selective_sums_keep_fp32_digits_over_4096_tokens() -> None:
    inputs = dynamics(4096, torch.float32)
    inputs[0] = inputs[0] * 1e-3
    assert close(selective_sums(*inputs), selective_by_loop(*inputs), FP32_SCAN)


@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_selective_sums_have_the_numerical_gradients(tokens: int) -> None:
    assert torch.autograd.gradcheck(selective_sums, [x.requires_grad_() for x in dynamics(tokens)], fast_mode=True)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_running_max_is_the_largest_so_far(tokens: int) -> None:
    x = normal(2, tokens, 3)
    assert torch.equal(running_max(x), torch.stack([x[:, : t + 1].amax(1) for t in range(tokens)], 1))


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("jump", [0.0, 500.0, -500.0])
def test_channelwise_reads_survive_a_jump_of_the_keys(tokens: int, jump: float) -> None:
    k, v = 3 * normal(2, tokens, 3), normal(2, tokens, 2, 3, seed=1)
    k[:, tokens // 2 :] += jump
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)[..., None]
    log_p = k[:, None].expand(-1, tokens, -1, -1).masked_fill(hidden, -torch.inf).log_softmax(2)
    assert close(channelwise_read(k, v), torch.einsum("btie,bice->btce", log_p.exp(), v), FP64)
    u = 100 * v[:, :, 0]
    assert close(channelwise_log_read(k, u), (log_p + u[:, None]).logsumexp(2), FP64)


@pytest.mark.parametrize("tokens", [1, 20])
def test_channelwise_reads_have_the_numerical_gradients(tokens: int) -> None:
    k, v = normal(1, tokens, 2).requires_grad_(), normal(1, tokens, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(channelwise_read, (k, v))
    assert torch.autograd.gradcheck(channelwise_log_read, (k, v[:, :, 0]))


@pytest.mark.parametrize("drift", [0.0, 0.02, -0.02])
def test_channelwise_reads_keep_fp32_digits_over_4096_tokens(drift: float) -> None:
    """Keys that drift by 80 over the sequence: the newest tokens weigh all, or the oldest."""
    k = normal(1, 4096, 3, dtype=torch.float32) + drift * torch.arange(4096.0)[:, None]
    v, u = normal(1, 4096, 3, seed=1, dtype=torch.float32), 30 * normal(1, 4096, 3, seed=2, dtype=torch.float32)
    rows = [0, 99, 4095]
    mean = torch.stack([(k.double()[:, : t + 1].softmax(1) * v.double()[:, : t + 1]).sum(1) for t in rows], 1)
    assert close(channelwise_read(k, v[:, :, None])[:, rows, 0], mean, FP32_SCAN)
    wanted = (k.double() + u.double()).logcumsumexp(1) - k.double().logcumsumexp(1)
    assert close(channelwise_log_read(k, u), wanted, FP32_SCAN)


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 33, 48, 64, 65, 130])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_selective_sums_and_gradients_of_any_number_of_channels_are_the_recurrence(
    channels: int, dtype: torch.dtype
) -> None:
    made = [normal(2, 37, channels).abs(), -3 * normal(4, channels, seed=1).abs(), normal(2, 37, 4, seed=2).abs()]
    inputs = [x.to(dtype) for x in (*made, normal(2, 37, 4, seed=3).abs(), normal(2, 37, 2, channels, seed=4))]
    found, wanted = ([x.clone().to(t).requires_grad_() for x in inputs] for t in (dtype, torch.float64))
    results = selective_sums(*found), selective_by_loop(*wanted)
    upstream = normal(*results[1].shape, seed=5)
    gradients = [
        torch.autograd.grad(y, xs, upstream.to(y.dtype)) for y, xs in zip(results, (found, wanted), strict=True)
    ]
    pairs = [results, *zip(*gradients, strict=True)]
    allowed = FP64 if dtype == torch.float64 else FP32_SCAN
    assert all(close(got.detach(), right.detach(), allowed) for got, right in pairs)


def test_selective_decays_forget_completely_and_keep_what_does_not_decay() -> None:
    delta, a = torch.full((1, 60, 2), 1.0), torch.tensor([[-200.0, 0.0]])
    v = torch.zeros(1, 60, 1, 2)
    v[:, 0] = 1e30
    y = selective_sums(delta, a, torch.ones(1, 60, 1), torch.ones(1, 60, 1), v)[0, :, 0]
    assert bool((y[1:, 0] == 0).all())
    assert bool((y[:, 1] == 1e30).all())
