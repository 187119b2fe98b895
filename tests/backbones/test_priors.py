"""Properties of every prior: reads equal those of its weights for any values, and depend only on visible tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from backbones.mixers.base import Context
from backbones.mixers.priors.base import Widths
from backbones.mixers.priors.ssm import SsmPrior, log_softplus
from tests.backbones.host_weights import HOSTS, H, V, case, log_mean, mean
from tests.tolerances import FP32, FP32_SCAN, FP64, PREFIX

every_host = pytest.mark.parametrize("name", HOSTS)
both_ways = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
lengths = st.sampled_from([1, 2, 3, 9, 16, 17, 31])
seeds = st.integers(0, 1000)
few = settings(max_examples=6, deadline=None)
BETAS = (1e-6, 0.01, 0.3, 1.9)


def off_by(got: Tensor, wanted: Tensor, scale: float = 0.0) -> float:
    """The largest error relative to the largest wanted value, or to `scale` where that is larger."""
    return float((got.double() - wanted).detach().abs().max()) / max(float(wanted.detach().abs().max()), scale)


@every_host
@both_ways
@few
@given(tokens=lengths, seed=seeds, logits=st.sampled_from([0.1, 1.0, 30.0]), copies=st.integers(1, 3))
def test_read_is_the_weighted_mean_at_any_width(
    name: str, causal: bool, tokens: int, seed: int, logits: float, copies: int
) -> None:
    c = case(name, causal, tokens, seed=seed, logits=logits)
    wide = torch.cat([(1 + i) * c.v.roll(i, 1) for i in range(copies)], dim=-1)
    wanted = torch.cat([mean(c.log_weights(), part) for part in wide.chunk(copies, -1)], dim=-1)
    assert off_by(c.prior.read(c.weights(), wide), wanted) <= FP64


@every_host
@both_ways
@few
@given(
    tokens=lengths,
    seed=seeds,
    logits=st.sampled_from([0.1, 1.0, 30.0]),
    size=st.sampled_from([1e-6, 1e-2, 1.0, 25.0, 200.0]),
)
def test_log_read_is_exact_for_any_finite_values(
    name: str, causal: bool, tokens: int, seed: int, logits: float, size: float
) -> None:
    c = case(name, causal, tokens, seed=seed, logits=logits, values=size)
    wanted = log_mean(c.log_weights(), c.v)
    # the reference itself rounds: log-weights to 1e-16, so that values below 1e-2 are compared absolutely
    assert off_by(c.prior.log_read(c.weights(), c.v), wanted, scale=1e-2) <= FP64


@every_host
@few
@given(tokens=lengths, seed=seeds, logits=st.sampled_from([0.3, 3.0, 30.0]), size=st.sampled_from([0.1, 3.0, 200.0]))
def test_fp32_is_accurate(name: str, tokens: int, seed: int, logits: float, size: float) -> None:
    c = case(name, True, tokens, seed=seed, logits=logits, values=size, dtype=torch.float32)
    weights = c.weights()
    got, got_log, log_p = c.prior.read(weights, c.v), c.prior.log_read(weights, c.v), c.log_weights()
    # any computation of scores of size L has an error of 1e-7 L in every weight
    scores = 1.0 + logits**2
    assert off_by(got, mean(log_p, c.v), float(c.v.abs().max())) <= FP32 * scores
    assert off_by(got_log, log_mean(log_p, c.v), max(1.0, float(c.v.abs().max()))) <= FP32 * scores


@every_host
@both_ways
def test_weights_are_positive_and_sum_to_one(name: str, causal: bool) -> None:
    c = case(name, causal, 19)
    weights = c.weights()
    ones = torch.ones_like(c.v)
    assert off_by(c.prior.read(weights, ones), ones) <= FP64
    for token in (0, 7, 18):
        alone = torch.zeros_like(c.v)
        alone[:, token] = 1.0
        assert bool((c.prior.read(weights, alone) >= 0).all())


@every_host
@both_ways
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("size", [1.0, 80.0])
def test_free_energy_is_both_reads_at_once(name: str, causal: bool, beta: float, size: float) -> None:
    c = case(name, causal, 17, values=size)
    betas = torch.full((H, V), beta, dtype=torch.float64)
    mu, F = c.prior.free_energy(c.weights(), c.v, betas)
    log_p = c.log_weights()
    assert off_by(mu, mean(log_p, c.v)) <= FP64
    assert off_by(F, log_mean(log_p, beta * c.v) / beta, scale=1e-2 / beta) <= FP64
    assert off_by(F, log_mean(log_p, beta * c.v) / beta) <= 1e-7


@every_host
@pytest.mark.parametrize("size", [0.5, 105.0])  # of v: βv spans ±1 and ±200
@few
@given(tokens=st.sampled_from([2, 9, 33, 70]), seed=seeds, fraction=st.floats(0.1, 0.9))
def test_no_row_depends_on_later_tokens(name: str, size: float, tokens: int, seed: int, fraction: float) -> None:
    c = case(name, True, tokens, seed=seed, values=size, dtype=torch.float32)
    seen, beta = max(1, int(fraction * tokens)), torch.full((H, V), 1.9)
    futures = {
        "changed": c.map(lambda z: torch.cat((z[:, :seen], 1.5 - z[:, seen:].flip(1)), 1)),
        "scaled": c.map(lambda z: torch.cat((z[:, :seen], 1e4 * z[:, seen:]), 1)),
        "removed": c.map(lambda z: z[:, :seen]),
    }
    before = [y[:, :seen] for y in c.prior.free_energy(c.weights(), c.v, beta)]
    for other in futures.values():
        after = [y[:, :seen] for y in c.prior.free_energy(other.weights(), other.v, beta)]
        for one, two in zip(before, after, strict=True):
            assert off_by(two, one.detach().double()) <= PREFIX


@every_host
@both_ways
@pytest.mark.parametrize("size", [1.0, 105.0])
def test_padding_on_the_left_changes_nothing(name: str, causal: bool, size: float) -> None:
    c = case(name, causal, 11, values=size)
    padded = c.map(lambda z: torch.cat((50 * z[:, :4].flip(1), z), 1))
    mask = torch.ones(2, 15, dtype=torch.bool)
    mask[:, :4] = False
    padded = replace(padded, mask=mask)
    beta = torch.full((H, V), 1.9, dtype=torch.float64)
    for one, two in zip(
        c.prior.free_energy(c.weights(), c.v, beta),
        padded.prior.free_energy(padded.weights(), padded.v, beta),
        strict=True,
    ):
        assert bool(two.isfinite().all())
        assert off_by(two[:, 4:], one) <= FP64


@every_host
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1.0, 105.0])
@pytest.mark.parametrize("beta", [1e-3, 1.9])
def test_decoding_equals_the_parallel_computation(name: str, dtype: torch.dtype, size: float, beta: float) -> None:
    c = case(name, True, 21, values=size, dtype=dtype)
    betas = torch.full((H, V), beta, dtype=dtype)
    mu, F = c.prior.free_energy(c.weights(), c.v, betas)
    state = c.prior.init_state(2, 21, c.v, free_energy=True)
    tolerance = FP64 if dtype == torch.float64 else FP32_SCAN
    with torch.no_grad():
        for t in range(21):
            one = c.map(lambda z, t=t: z[:, t : t + 1])  # type: ignore[misc]
            weights = one.prior.prepare(one.x, one.keys, Context(), offset=t)
            step_mu, step_F = c.prior.step(weights, one.v, state, t, betas)
            assert step_F is not None
            for got, wanted in ((step_mu, mu), (step_F, F)):
                assert off_by(got[:, 0], wanted[:, t].double(), float(wanted.detach().abs().max())) <= tolerance
    numbers = sum(tensor.numel() for tensor in state.values())
    assert numbers == 2 * c.prior.state_numbers(c.prior.widths, 21, free_energy=True)


@every_host
@both_ways
@pytest.mark.parametrize("logits", [1.0, 1e4], ids=["logits 1", "logits 1e4"])
@pytest.mark.parametrize("kind", ["spans ±200", "one jump", "constant", "zero", "one token", "all masked"])
@pytest.mark.slow
def test_values_and_gradients_are_finite_at_the_extremes(name: str, causal: bool, logits: float, kind: str) -> None:
    c = case(name, causal, 1 if kind == "one token" else 20, logits=logits, values=40.0, dtype=torch.float32)
    if kind == "one jump":
        c = replace(c, v=torch.where(torch.arange(20)[:, None, None] < 10, -100.0, 100.0).expand_as(c.v).clone())
    if kind in ("constant", "zero"):
        c = c.map(lambda z: torch.full_like(z, 3.0 if kind == "constant" else 0.0))
    if kind == "all masked":
        c = replace(c, mask=torch.tensor([[False] * 20, [True] * 20]))
    beta = torch.full((H, V), 1.9, requires_grad=True)
    c = c.map(lambda z: z.requires_grad_())
    mu, F = c.prior.free_energy(c.weights(), c.v, beta)
    assert bool(mu.isfinite().all())
    assert bool(F.isfinite().all())
    inputs = [c.v, beta, *c.keys, *([c.x] if list(c.prior.parameters()) else []), *c.prior.parameters()]
    for gradient in torch.autograd.grad((mu * mu + 3 * F).sum(), inputs, allow_unused=True, materialize_grads=True):
        assert bool(gradient.isfinite().all())


@every_host
@pytest.mark.parametrize("size", [1.0, 40.0], ids=["one pass", "exact rows"])
def test_the_gradient_of_the_free_energy_is_the_posterior(name: str, size: float) -> None:
    c = case(name, True, 9, values=size)
    v, beta = c.v.requires_grad_(), torch.full((H, V), 1.9, dtype=torch.float64)
    F = c.prior.free_energy(c.weights(), v, beta)[1]
    log_p = c.log_weights().detach()
    posterior = (log_p + 1.9 * v.detach()[:, None]).softmax(2)  # [B, T, T, H, d]
    for t in (0, 4, 8):
        (gradient,) = torch.autograd.grad(F[:, t].sum(), v, retain_graph=True)
        assert off_by(gradient, posterior[:, t]) <= FP64


@every_host
@pytest.mark.parametrize("beta", [0.1, 1.9], ids=["small β", "usual β"])
@pytest.mark.parametrize("size", [1.0, 40.0], ids=["one pass", "exact rows"])
def test_gradients_equal_numerical_ones(name: str, beta: float, size: float) -> None:
    c = case(name, True, 5, values=size, batch=1)
    inputs = [t.requires_grad_() for t in (c.x, *c.keys, c.v)]

    def function(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *keys, v, betas = rest
        moved = replace(c, x=x, keys=tuple(keys), v=v)
        return tuple(moved.prior.free_energy(moved.weights(), v, betas))

    betas = torch.full((H, V), beta, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (*inputs, betas), fast_mode=True, atol=1e-6, rtol=1e-4)


def test_the_logarithm_of_softplus_is_exact_on_both_sides_of_its_series() -> None:
    z = torch.cat([torch.linspace(-700.0, 19.0, 1439), torch.tensor([-15.0 - 1e-9, -15.0, -15.0 + 1e-9])]).double()
    expected = z.exp().log1p().log()  # neither underflows nor rounds in this range
    torch.testing.assert_close(log_softplus(z), expected, rtol=1e-14, atol=1e-14)


def test_initial_steps_rates_and_skips_of_the_state_space_are_the_published_ones() -> None:
    torch.manual_seed(0)
    prior = SsmPrior(Widths(16, 2, 0, 4000), causal=True)
    prior.reset_parameters()
    steps = softplus(prior.bias.detach().double()).sort().values
    assert 0.000999 < float(steps[0]) < 0.00101
    assert 0.0995 < float(steps[-1]) < 0.1001
    assert float(steps.median()) == pytest.approx(0.01, rel=0.1)  # log-uniform
    rates = torch.arange(1.0, 17.0)[:, None].expand(16, 8000)
    torch.testing.assert_close(prior.a_log.detach().exp(), rates, rtol=1e-6, atol=0)
    torch.testing.assert_close(softplus(prior.w_skip.detach()), torch.full((8000,), 0.126928), rtol=1e-5, atol=0)
