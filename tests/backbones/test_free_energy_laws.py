"""The free energy of every host prior: bounds, monotonicity, limits, and its posterior (arXiv 2602.07160)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.backbones.host_weights import HOSTS, Case, H, V, case, mean
from tests.tolerances import FP64

every_host = pytest.mark.parametrize("name", HOSTS)
both_ways = pytest.mark.parametrize(
    "causal", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["causal", "both-ways"]
)
lengths, seeds = st.sampled_from([1, 2, 9, 17]), st.integers(0, 1000)
few = settings(max_examples=5, deadline=None)


def reads(c: Case, beta: float) -> tuple[Tensor, Tensor]:
    """(μ, F) at one β for all channels."""
    mu, F = c.prior.free_energy(c.weights(), c.v, torch.full((H, V), beta, dtype=c.v.dtype))
    return mu.detach(), F.detach()


def largest_visible(c: Case, log_p: Tensor) -> Tensor:
    return torch.where(log_p > -torch.inf, c.v.double()[:, None], -torch.inf).amax(2)


@every_host
@both_ways
@few
@given(tokens=lengths, seed=seeds, size=st.sampled_from([0.1, 1.0, 30.0]), logits=st.sampled_from([0.3, 3.0]))
def test_free_energy_lies_between_mean_and_maximum_and_grows_with_beta(
    name: str, causal: bool, tokens: int, seed: int, size: float, logits: float
) -> None:
    c = case(name, causal, tokens, seed=seed, values=size, logits=logits)
    top, rounding = largest_visible(c, c.log_weights().detach()), 1e-12 * size
    mu = below = reads(c, 1e-3)[0]
    for beta in (1e-3, 0.03, 0.4, 0.6, 1.9, 7.0, 100.0):
        F = reads(c, beta)[1]
        assert float((mu - F).max()) <= rounding / beta
        assert float((F - top).max()) <= rounding
        assert float((below - F).max()) <= rounding / beta
        below = F


@every_host
@both_ways
@few
@given(tokens=lengths, seed=seeds, size=st.sampled_from([0.5, 3.0]), beta=st.sampled_from([0.1, 1.9, 8.0]))
def test_free_energy_is_the_mean_plus_the_divergence_from_the_posterior(
    name: str, causal: bool, tokens: int, seed: int, size: float, beta: float
) -> None:
    c = case(name, causal, tokens, seed=seed, values=size)
    log_p = c.log_weights().detach()
    log_q = (log_p + beta * c.v[:, None]).log_softmax(2)
    divergence = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(2)
    mu, F = reads(c, beta)
    assert float((F - mu - divergence / beta).abs().max()) <= FP64 * float(F.abs().max())
    assert float((mu - mean(log_p, c.v)).abs().max()) <= FP64 * float(c.v.abs().max())


@every_host
@both_ways
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@few
@given(tokens=lengths, seed=seeds)
def test_a_large_beta_selects_the_largest_value_it_sees(
    name: str, causal: bool, dtype: torch.dtype, tokens: int, seed: int
) -> None:
    c = case(name, causal, tokens, seed=seed, dtype=dtype)
    c = replace(c, v=c.v.clamp(-5, 5))
    F = reads(c, 1e3)[1].double()
    log_p = c.log_weights().detach()
    top = largest_visible(c, log_p)
    at_top = torch.where(c.v.double()[:, None] == top[:, :, None], log_p, -torch.inf).amax(2)
    counted = at_top > math.log(1e-4)
    assert bool(counted.any())
    assert float((F - top)[counted].abs().max()) <= 1e-2


@every_host
@both_ways
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_vanishing_beta_gives_the_mean(name: str, causal: bool, dtype: torch.dtype) -> None:
    c = case(name, causal, 17, dtype=dtype)
    mu, F = reads(c, 1e-6)
    wanted = mean(c.log_weights().detach(), c.v)
    scale = float(wanted.abs().max())
    tolerance = 2e-6 if dtype == torch.float32 else 1e-6  # fp32: its own rounding of μ on top
    assert float((F.double() - wanted).abs().max()) <= tolerance * max(scale, 1.0)
    assert float((mu.double() - wanted).abs().max()) <= tolerance * max(scale, 1.0)
