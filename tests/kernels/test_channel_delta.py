"""The delta rule with one decay per channel, in chunks, against its recurrence, token by token in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from kernels.linear.channel_delta import channel_delta_rule, channel_delta_step
from kernels.linear.delta import delta_rule
from tests.kernels.test_delta import LENGTHS, B, H, K, W, apart, normal
from tests.tolerances import FP32_SCAN, FP64

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")
keys = pytest.mark.parametrize("two", [False, True], ids=["one key", "two keys"])


def problem(tokens: int, two: bool = True) -> list[Tensor]:
    """q, k, v, β, log α and, with two keys, what a correction reads."""
    q, k, read = (normalize(normal(B, tokens, H, K, seed=seed), dim=-1) for seed in (0, 1, 5))
    beta = 2 * normal(B, tokens, H, seed=3).sigmoid()
    log_decay = logsigmoid(normal(B, tokens, H, K, seed=4))
    return [q, k, normal(B, tokens, H, W, seed=2), beta, log_decay, *([read] if two else [])]


def by_loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, read: Tensor | None = None) -> Tensor:
    memory, rows = torch.zeros(B, H, K, W, dtype=torch.float64), []
    read = k if read is None else read
    for t in range(q.shape[1]):
        memory = log_decay[:, t].exp()[..., None] * memory
        error = v[:, t] - torch.einsum("bhkw,bhk->bhw", memory, read[:, t])
        memory = memory + torch.einsum("bhk,bhw->bhkw", k[:, t], beta[:, t, :, None] * error)
        rows.append(torch.einsum("bhkw,bhk->bhw", memory, q[:, t]))
    return torch.stack(rows, dim=1)


@keys
@pytest.mark.parametrize("tokens", LENGTHS)
def test_chunks_are_the_recurrence_and_so_are_their_gradients(two: bool, tokens: int) -> None:
    inputs = [x.requires_grad_() for x in problem(tokens, two)]
    found, wanted = channel_delta_rule(*inputs), by_loop(*inputs)
    assert apart(found, wanted) < FP64
    upstream = normal(*wanted.shape, seed=9)
    pairs = zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    )
    assert all(apart(mine, theirs) < 10 * FP64 for mine, theirs in pairs if float(theirs.abs().max()) > 1e-12)


def test_equal_decays_of_all_channels_are_the_rule_with_a_decay_per_head() -> None:
    q, k, v, beta, log_decay = problem(150, two=False)
    same = log_decay[..., :1].expand_as(log_decay)
    assert apart(channel_delta_rule(q, k, v, beta, same), delta_rule(q, k, v, beta, log_decay[..., 0])) < FP64


@keys
@pytest.mark.parametrize("size", [1e2, 1e3, 1e5])
def test_decays_far_below_the_smallest_number_are_exact_and_have_finite_gradients(two: bool, size: float) -> None:
    """Some channels forget at some tokens, and the others keep what they have."""
    inputs = problem(129, two)
    inputs[4][:, 40:50, :, ::2] = -size
    inputs[4][:, 45:100, :, 1] = -size
    inputs = [x.requires_grad_() for x in inputs]
    found = channel_delta_rule(*inputs)
    assert apart(found, by_loop(*inputs)) < FP64
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(found.sum(), inputs))


def test_decays_that_add_up_to_hundreds_inside_of_a_chunk_stay_exact_in_fp32() -> None:
    """Here e^{−G} would be infinite in fp32, and e^G zero."""
    inputs = problem(257, two=False)
    inputs[4] = 10 * inputs[4]
    inputs[4][..., 0] = 0.0
    rounded = [x.float() for x in inputs]
    assert float(inputs[4][:, :64].sum(1).min()) < -300
    assert apart(channel_delta_rule(*rounded), by_loop(*(x.double() for x in rounded))) < FP32_SCAN


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.99])
def test_equal_keys_stay_exact_in_fp32(beta: float) -> None:
    """The worst case of the triangular solve: every token corrects the one before."""
    q, k, v, betas, log_decay = problem(257, two=False)
    k, betas = k[:, :1].expand_as(k).contiguous(), torch.full_like(betas, beta)
    rounded = [x.float() for x in (q, k, v, betas, log_decay)]
    assert apart(channel_delta_rule(*rounded), by_loop(*(x.double() for x in rounded))) < FP32_SCAN


def test_tokens_with_a_beta_of_zero_and_no_decay_change_nothing() -> None:
    q, k, v, beta, log_decay = problem(70, two=False)
    hidden = torch.arange(70).view(1, -1, 1) < 9
    found = channel_delta_rule(q, k, v, beta.masked_fill(hidden, 0.0), log_decay.masked_fill(hidden[..., None], 0.0))
    assert apart(found[:, 9:], channel_delta_rule(*(x[:, 9:] for x in (q, k, v, beta, log_decay)))) < FP64


@keys
def test_the_future_changes_no_bit_of_the_past(two: bool) -> None:
    inputs = [x.float() for x in problem(200, two)]
    before = channel_delta_rule(*inputs)
    for x in (*inputs[:3], *inputs[5:]):
        x[:, 150:] *= -3.0
    inputs[4][:, 150:] *= 100.0
    assert torch.equal(channel_delta_rule(*inputs)[:, :150], before[:, :150])


@keys
def test_steps_are_the_rows(two: bool) -> None:
    inputs = problem(20, two)
    memory, rows = torch.zeros(B, H, K, W, dtype=torch.float64), []
    for t in range(20):
        q, k, v, beta, log_decay, *read = (x[:, t] for x in inputs)
        o, memory = channel_delta_step(memory, q, k, v, beta, log_decay, *read)
        rows.append(o)
    assert apart(torch.stack(rows, dim=1), channel_delta_rule(*inputs)) < FP64
