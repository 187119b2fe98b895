"""The Triton kernels of the delta rule against its recurrence in fp64, and in bf16: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from kernels.gpu.delta import CHUNK, delta_rule
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.kernels.gpu.interpreted.test_scans import assert_same
from tests.kernels.test_delta import by_loop, normal
from tests.tolerances import FP32_SCAN

pytestmark = pytest.mark.slow
BF16 = 2.0**-7  # a unit in the last place: the interpreter cuts numbers off where a GPU rounds them


def problem(tokens: int, decays: bool = True, keys: int = 5, values: int = 4, heads: int = 2) -> list[Tensor]:
    """q, k, v, β and, with decays, log α."""
    q, k = (normalize(normal(1, tokens, heads, keys, seed=i), dim=-1) for i in range(2))
    beta, gates = 2 * normal(1, tokens, heads, seed=3).sigmoid(), logsigmoid(normal(1, tokens, heads, seed=4))
    return [q, k, normal(1, tokens, heads, values, seed=2), beta, *([gates] if decays else [])]


@pytest.mark.parametrize("decays", [True, False], ids=["gated", "no decay"])
@pytest.mark.parametrize("tokens", [1, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, 257])
def test_chunks_are_the_recurrence_and_so_are_their_gradients(decays: bool, tokens: int) -> None:
    assert_same(delta_rule, by_loop, problem(tokens, decays, heads=2 if tokens < CHUNK else 1))


@pytest.mark.parametrize(("keys", "values"), [(35, 4), (4, 35), (67, 40)])
def test_wide_heads_are_computed_in_blocks_of_channels(keys: int, values: int) -> None:
    assert_same(delta_rule, by_loop, problem(CHUNK + 8, keys=keys, values=values, heads=1))


def test_sequences_do_not_mix() -> None:
    one, two = problem(CHUNK + 3), [x.flip(1) for x in problem(CHUNK + 3)]
    assert_same(delta_rule, by_loop, [torch.cat(pair) for pair in zip(one, two, strict=True)])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5])
def test_equal_keys_stay_exact(beta: float) -> None:
    """The worst case of the triangular inverse: every token corrects the one before, and nothing decays."""
    q, k, v, betas = problem(3 * CHUNK, decays=False, heads=1)
    assert_same(delta_rule, by_loop, [q, k[:, :1].expand_as(k), v, torch.full_like(betas, beta)])


def test_equal_keys_at_the_largest_beta_stay_exact_under_decay() -> None:
    q, k, v, betas, log_decay = problem(3 * CHUNK, heads=1)
    assert_same(delta_rule, by_loop, [q, k[:, :1].expand_as(k), v, torch.full_like(betas, 1.99), log_decay])


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_decays_far_below_the_smallest_number_are_exact(size: float) -> None:
    *rest, log_decay = problem(2 * CHUNK)
    log_decay[:, 20:40] = -size
    assert_same(delta_rule, by_loop, [*rest, log_decay])


def test_bf16_inputs_are_computed_in_fp32() -> None:
    narrow = [x.bfloat16() for x in problem(CHUNK + 8)]
    leaves = [x.clone().requires_grad_() for x in narrow]
    wide = [x.double().requires_grad_() for x in narrow]
    found, wanted = delta_rule(*leaves), by_loop(*wide)
    assert found.dtype == torch.bfloat16
    assert_close("result", found, wanted, BF16)
    upstream = normal(*wanted.shape, seed=9).bfloat16()
    gradients = (
        torch.autograd.grad(found, leaves, upstream),
        torch.autograd.grad(wanted, wide, upstream.double()),
    )
    for i, (a, b) in enumerate(zip(*gradients, strict=True)):
        assert a.dtype == torch.bfloat16
        assert_close(f"gradient {i}", a, b, BF16)


def test_rates_and_decays_may_be_wider_than_the_values() -> None:
    inputs = [x.bfloat16() if i < 3 else x.float() for i, x in enumerate(problem(CHUNK + 1))]
    found, wanted = delta_rule(*inputs), by_loop(*(x.double() for x in inputs))
    assert_close("result", found, wanted, BF16)


def test_tokens_with_a_beta_of_zero_and_no_decay_change_nothing() -> None:
    q, k, v, beta, log_decay = (x.float() for x in problem(CHUNK + 8))
    hidden = torch.arange(CHUNK + 8).view(1, -1, 1) < 9
    found = delta_rule(q, k, v, beta.masked_fill(hidden, 0.0), log_decay.masked_fill(hidden, 0.0))
    assert_close("rows", found[:, 9:], delta_rule(*(x[:, 9:] for x in (q, k, v, beta, log_decay))).double(), FP32_SCAN)


def test_later_tokens_change_no_bit_before_them() -> None:
    inputs = [x.float() for x in problem(2 * CHUNK + 10)]
    before = delta_rule(*inputs)
    for x, factor in zip(inputs, (100.0, -1.0, 100.0, 0.5, 0.5), strict=True):
        x[:, CHUNK + 5 :] *= factor
    after = delta_rule(*inputs)
    assert torch.equal(after[:, : CHUNK + 5], before[:, : CHUNK + 5])
    assert not torch.equal(after, before)
