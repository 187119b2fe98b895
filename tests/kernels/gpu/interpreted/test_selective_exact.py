"""The Triton kernels of the log-domain selective scan against weights written out in fp64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.gpu.selective_exact import CHUNK, exact_read
from kernels.selective.exact import _by_pytorch
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.kernels.gpu.interpreted.test_scans import assert_same
from tests.kernels.test_linear_and_selective_reads import reads, selective_log_weights
from tests.kernels.test_scans import normal
from tests.tolerances import FP32_SCAN

pytestmark = pytest.mark.slow


def problem(tokens: int, size: float = 1.0, states: int = 3, channels: int = 5) -> list[Tensor]:
    """log Δ, A, log B, log C, log δ, v, u."""
    log_b, log_c = (normal(2, tokens, states, seed=seed) for seed in (2, 3))
    rates, skip = -normal(states, channels, seed=1).abs(), normal(channels, seed=4)
    v, u = normal(2, tokens, channels, seed=5), size * normal(2, tokens, channels, seed=6)
    return [normal(2, tokens, channels) - 2, rates, log_b, log_c, skip, v, u]


def by_formula(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return reads(selective_log_weights(*inputs[:5]), *inputs[5:])


@pytest.mark.parametrize("size", [0.1, 100.0])
@pytest.mark.parametrize("tokens", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_reads_are_the_formula_for_any_values(tokens: int, size: float) -> None:
    assert_same(exact_read, by_formula, problem(tokens, size))


@pytest.mark.parametrize(("states", "channels"), [(1, 2), (16, 3), (2, 35)])
def test_any_number_of_states_and_channels(states: int, channels: int) -> None:
    assert_same(exact_read, by_formula, problem(6, states=states, channels=channels))


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_log_weights_of_any_size_keep_their_digits(size: float) -> None:
    """As large as these, logarithms in fp32 would round by more than the weights may be off."""
    inputs = problem(20)
    inputs[2], inputs[3], inputs[4] = inputs[2] + size, inputs[3] - size / 2, inputs[4] + size / 2
    assert_same(exact_read, by_formula, inputs)


@pytest.mark.parametrize("to_weight", [0.0, -1.0])
@pytest.mark.parametrize("step", [40.0, 200.0])
def test_a_jump_of_weights_and_values_under_a_huge_upstream(step: float, to_weight: float) -> None:
    inputs = problem(12)
    jump = torch.where(torch.arange(12) < 7, -step, step)[:, None]
    inputs[2], inputs[6] = inputs[2] + to_weight * jump, inputs[6] + jump
    assert_same(exact_read, by_formula, inputs, 1e-4, upstream=65_536.0)


def test_a_long_sequence_keeps_the_gradient_of_its_rates() -> None:
    log_delta, *rest = problem(129, states=2, channels=2)
    assert_same(exact_read, by_formula, [log_delta - 4, *rest])


def test_both_implementations_agree_on_hidden_tokens() -> None:
    inputs = [x.float() for x in problem(12)]
    inputs[2][:, :7] = -1e9
    for got, wanted in zip(exact_read(*inputs), _by_pytorch(inputs), strict=True):
        assert_close("rows", got, wanted.double(), FP32_SCAN)


def test_later_tokens_change_no_bit_before_them() -> None:
    inputs = [x.float() for x in problem(CHUNK + 8)]
    before = exact_read(*inputs)
    for x in (inputs[0], inputs[2], inputs[3], inputs[5], inputs[6]):
        x[:, CHUNK + 2 :] *= -3.0
    after = exact_read(*inputs)
    assert all(torch.equal(a[:, : CHUNK + 2], b[:, : CHUNK + 2]) for a, b in zip(after, before, strict=True))
    assert not any(map(torch.equal, after, before))
