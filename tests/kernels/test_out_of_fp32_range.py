"""Free energies of fp32 values beyond the range of a pass in fp32: in one pass in fp64, and beyond that in the log
domain; only for the heads and channels that have such values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import free_energy as softmax
from kernels.linear import free_energy as linear
from kernels.linear.free_energy import linear_free_energy, linear_read
from kernels.linear.weights import LinearWeights
from kernels.selective import free_energy as selective
from tests.kernels.test_linear_and_selective_reads import (
    B,
    Case,
    D,
    H,
    K,
    close,
    linear_case,
    linear_inputs,
    linear_log_weights,
    masked,
    normal,
    reads,
    selective_case,
)
from tests.tolerances import FP32_SCAN

TOKENS = 70


def softmax_case(tokens: int) -> Case:
    def fast(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return softmax.free_energy_read(inputs[0], inputs[1], v, beta, causal=True)

    def formula(inputs: list[Tensor], v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.einsum("bthk,bshk->btsh", inputs[0], inputs[1]) / K**0.5
        mean, log_mean = reads(masked(logits[..., None], causal=True), v, beta * v)
        return mean, log_mean / beta

    inputs = [20 * normal(B, tokens, H, K), normal(B, tokens, H, K, seed=1)]
    return inputs, normal(B, tokens, H, D, seed=5), 1 + normal(H, D, seed=6).abs(), fast, formula


cases = pytest.mark.parametrize(
    "case", [softmax_case, linear_case, selective_case], ids=["softmax", "linear", "selective"]
)
in_cpp_and_pytorch = pytest.mark.usefixtures("cpp_or_pytorch")


def sized(v: Tensor, beta: Tensor, size: float) -> Tensor:
    """Values whose largest |βv| is `size`."""
    return v * size / (beta * v).abs().max()


@pytest.fixture
def log_domain(monkeypatch) -> list[Tensor]:
    """The values that reach the log domain."""
    asked: list[Tensor] = []
    for module, name, position in (
        (softmax, "_exact_rows", 2),
        (linear, "exact_read", 3),
        (selective, "exact_read", 5),
    ):
        read = getattr(module, name)

        def watched(*arguments: Tensor, read: Callable[..., object] = read, position: int = position) -> object:
            asked.append(arguments[position])
            return read(*arguments)

        monkeypatch.setattr(module, name, watched)
    return asked


@cases
@in_cpp_and_pytorch
@pytest.mark.parametrize(
    ("size", "beta_scale", "needs_logs"),
    [(35.0, 1.0, False), (240.0, 1.0, False), (700.0, 1.0, True), (17.0, 0.1, False), (60.0, 0.1, True)],
    ids=["just beyond", "far beyond", "beyond fp64", "small beta", "small beta beyond fp64"],
)
def test_free_energies_beyond_the_fp32_range_and_their_gradients_are_the_formula(
    case: Callable[[int], Case], size: float, beta_scale: float, needs_logs: bool, log_domain: list[Tensor]
) -> None:
    inputs, v, beta, fast, formula = case(TOKENS)
    beta = beta_scale * beta if beta_scale == 1 else beta_scale * beta / beta.max()
    leaves = [x.float().requires_grad_() for x in (*inputs, sized(v, beta, size), beta)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    found, wanted = fast(leaves[:-2], leaves[-2], leaves[-1]), formula(exact[:-2], exact[-2], exact[-1])
    assert bool(log_domain) is needs_logs
    assert all(close(got, right, FP32_SCAN) for got, right in zip(found, wanted, strict=True))
    upstream = [normal(*y.shape, seed=8) for y in wanted]
    got = torch.autograd.grad(found, leaves, [x.float() for x in upstream])
    right = torch.autograd.grad(wanted, exact, upstream)
    assert all(close(one, other, 5 * FP32_SCAN) for one, other in zip(got, right, strict=True))


@cases
@in_cpp_and_pytorch
@pytest.mark.parametrize("late", [100.0, 1e4], ids=["in the range of fp64", "beyond it"])
def test_a_late_value_changes_no_bit_before_it(case: Callable[[int], Case], late: float) -> None:
    inputs, v, beta, fast, _ = case(TOKENS)
    changed = v.clone()
    changed[:, 60, ..., 0] = late
    before, after = (fast([t.float() for t in inputs], x.float(), beta.float()) for x in (v, changed))
    assert all(torch.equal(one[:, :60], other[:, :60]) for one, other in zip(before, after, strict=True))
    assert not torch.equal(before[1][:, 60:], after[1][:, 60:])


@cases
@in_cpp_and_pytorch
def test_a_value_beyond_fp64_leaves_earlier_wide_rows_as_they_are(case: Callable[[int], Case]) -> None:
    inputs, v, beta, fast, _ = case(TOKENS)
    wide = v.clone()
    wide[:, 20, ..., 0] = 50.0
    beyond = wide.clone()
    beyond[:, 60, ..., 0] = 1e4
    before, after = (fast([t.float() for t in inputs], x.float(), beta.float()) for x in (wide, beyond))
    assert all(torch.equal(one[:, :60], other[:, :60]) for one, other in zip(before, after, strict=True))


@in_cpp_and_pytorch
def test_only_the_head_that_is_out_of_range_is_computed_apart(log_domain: list[Tensor]) -> None:
    inputs, v, beta, fast, _ = linear_case(TOKENS)
    v[1, 3, 1] = 1e4
    fast([x.float() for x in inputs], v.float(), beta.float())
    assert [asked.shape for asked in log_domain] == [(1, TOKENS, 1, D)]


@in_cpp_and_pytorch
def test_only_the_channel_that_is_out_of_range_is_computed_apart(log_domain: list[Tensor]) -> None:
    inputs, v, beta, fast, _ = selective_case(TOKENS)
    v[1, 3, 2] = 1e4
    fast([x.float() for x in inputs], v.float(), beta.float())
    assert [asked.shape for asked in log_domain] == [(1, TOKENS, 1)]


@in_cpp_and_pytorch
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all tokens"])
@pytest.mark.parametrize(("shift", "needs_logs"), [(60.0, False), (400.0, True)], ids=["faint", "beyond fp64"])
def test_faint_features_keep_their_weights(
    causal: bool, shift: float, needs_logs: bool, log_domain: list[Tensor]
) -> None:
    log_q, log_k, decay = linear_inputs(TOKENS, "one per head" if causal else "none")
    log_k = torch.where(torch.arange(TOKENS).view(1, -1, 1, 1) < TOKENS // 2, log_k - shift, log_k)
    v, beta = normal(B, TOKENS, H, D, seed=5), 1 + normal(H, D, seed=6).abs()
    decay_32 = None if decay is None else decay.float()
    weights = LinearWeights.of(log_q.float(), log_k.float(), decay_32, None)
    mean, log_mean = reads(linear_log_weights(log_q, log_k, decay, causal), v, beta * v)
    found_mean, found = linear_free_energy(weights, v.float(), beta.float(), causal)
    assert close(found_mean, mean, FP32_SCAN)
    assert close(found, log_mean / beta, FP32_SCAN)
    assert close(linear_read(weights, v.float(), causal), mean, FP32_SCAN)
    assert bool(log_domain) is needs_logs


@in_cpp_and_pytorch
@pytest.mark.parametrize("kind", ["one per head", "one per channel"])
def test_a_large_value_counts_after_strong_decays_in_linear_reads(kind: str) -> None:
    """The weight of the first token falls to e^{−207}, its exponential is e^{400} times the others'."""
    log_q, log_k, decay = linear_inputs(TOKENS, kind)
    assert decay is not None
    decay, beta = torch.full_like(decay, -3.0), 1 + normal(H, D, seed=6).abs()
    v = torch.full((B, TOKENS, H, D), -200.0, dtype=torch.float64) / beta
    v[:, 0] *= -1
    weights = LinearWeights.of(log_q.float(), log_k.float(), decay.float(), None)
    _, log_mean = reads(linear_log_weights(log_q, log_k, decay, True), v, beta * v)
    assert close(linear_free_energy(weights, v.float(), beta.float(), True)[1], log_mean / beta, FP32_SCAN)


@in_cpp_and_pytorch
def test_a_large_value_counts_after_strong_decays_in_selective_reads() -> None:
    inputs, v, beta, fast, formula = selective_case(TOKENS)
    inputs[0], inputs[1] = torch.full_like(inputs[0], math.log(3.0)), torch.full_like(inputs[1], -1.0)
    v = torch.full_like(v, -200.0) / beta
    v[:, 0] *= -1
    found = fast([x.float() for x in inputs], v.float(), beta.float())
    assert close(found[1], formula(inputs, v, beta)[1], FP32_SCAN)


@in_cpp_and_pytorch
@pytest.mark.parametrize(
    ("near", "value", "total"), [(-14.9, 29.9, -80.5), (-149.0, 249.0, -690.0)], ids=["pass in fp32", "pass in fp64"]
)
@pytest.mark.parametrize("kind", ["one per head", "one per channel"])
def test_a_decayed_large_value_counts_next_to_faint_near_tokens(
    near: float, value: float, total: float, kind: str
) -> None:
    """The far token's exponential is large, near tokens' features and exponentials small: all at their limits."""
    log_q, log_k, decay = linear_inputs(TOKENS, kind)
    assert decay is not None
    log_q, log_k, beta = torch.zeros_like(log_q), torch.full_like(log_k, near), torch.ones(H, D, dtype=torch.float64)
    log_k[:, 0], decay = 0.0, torch.full_like(decay, total / (TOKENS - 1))
    v = torch.full((B, TOKENS, H, D), -value, dtype=torch.float64)
    v[:, 0] = value
    v_32 = v.float().requires_grad_()
    v_64 = v_32.detach().double().requires_grad_()
    weights = LinearWeights.of(log_q.float(), log_k.float(), decay.float(), None)
    _, found = linear_free_energy(weights, v_32, beta.float(), True)
    _, wanted = reads(linear_log_weights(log_q, log_k, decay.float().double(), True), v_64, v_64)
    assert close(found, wanted, FP32_SCAN)
    (got,), (right,) = (torch.autograd.grad(y[:, -1].sum(), x) for y, x in ((found, v_32), (wanted, v_64)))
    assert close(got, right, 10 * FP32_SCAN)
