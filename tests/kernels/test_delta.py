"""The gated delta rule in chunks against its recurrence, token by token in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from kernels.decoding.memory import memory_step
from kernels.linear.delta import delta_rule
from tests.tolerances import FP32_SCAN, FP64

B, H, K, W = 2, 2, 5, 4
pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")
LENGTHS = [1, 2, 16, 17, 63, 64, 65, 129, 257]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(tokens: int, decays: bool = True) -> list[Tensor]:
    """q, k, v, β and, with decays, log α."""
    q, k = normalize(normal(B, tokens, H, K, seed=0), dim=-1), normalize(normal(B, tokens, H, K, seed=1), dim=-1)
    beta = 2 * normal(B, tokens, H, seed=3).sigmoid()
    gates = [logsigmoid(normal(B, tokens, H, seed=4))] if decays else []
    return [q, k, normal(B, tokens, H, W, seed=2), beta, *gates]


def by_loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None) -> Tensor:
    memory, rows = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1]), []
    for t in range(q.shape[1]):
        if log_decay is not None:
            memory = log_decay[:, t].exp()[..., None, None] * memory
        error = v[:, t] - torch.einsum("bhkw,bhk->bhw", memory, k[:, t])
        memory = memory + torch.einsum("bhk,bhw->bhkw", k[:, t], beta[:, t, :, None] * error)
        rows.append(torch.einsum("bhkw,bhk->bhw", memory, q[:, t]))
    return torch.stack(rows, dim=1)


def apart(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).detach().abs().max() / wanted.detach().abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("decays", [True, False], ids=["gated", "no decay"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_chunks_are_the_recurrence_and_so_are_their_gradients(decays: bool, tokens: int) -> None:
    inputs = [x.requires_grad_() for x in problem(tokens, decays)]
    found, wanted = delta_rule(*inputs), by_loop(*inputs)
    assert apart(found, wanted) < FP64
    upstream = normal(*wanted.shape, seed=9)
    pairs = zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream), strict=True
    )
    assert all(apart(mine, theirs) < 10 * FP64 for mine, theirs in pairs if float(theirs.abs().max()) > 1e-12)


@pytest.mark.parametrize("size", [1e3, 1e5])
def test_decays_far_below_the_smallest_number_are_exact_and_have_finite_gradients(size: float) -> None:
    *rest, log_decay = problem(129)
    log_decay[:, 40:50] = -size
    inputs = [x.requires_grad_() for x in (*rest, log_decay)]
    found = delta_rule(*inputs)
    assert apart(found, by_loop(*inputs)) < FP64
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(found.sum(), inputs))


def test_bf16_is_computed_in_fp32_and_returned_in_bf16() -> None:
    inputs = [x.bfloat16() for x in problem(70)]
    found = delta_rule(*inputs)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, delta_rule(*(x.float() for x in inputs)).bfloat16())


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.99])
def test_equal_keys_stay_exact_in_fp32(beta: float) -> None:
    """The worst case of the triangular solve: every token corrects the one before."""
    q, k, v, betas, log_decay = problem(257)
    k, betas = k[:, :1].expand_as(k).contiguous(), torch.full_like(betas, beta)
    found = delta_rule(*(x.float() for x in (q, k, v, betas, log_decay)))
    assert apart(found, by_loop(q, k.float().double(), v, betas, log_decay)) < FP32_SCAN


def test_a_beta_of_one_stores_a_value_exactly_under_its_key() -> None:
    _, k, v, beta = problem(70, decays=False)
    assert apart(delta_rule(k, k, v, torch.ones_like(beta)), v) < FP64


def test_tokens_with_a_beta_of_zero_and_no_decay_change_nothing() -> None:
    q, k, v, beta, log_decay = problem(70)
    hidden = torch.arange(70).view(1, -1, 1) < 9
    found = delta_rule(q, k, v, beta.masked_fill(hidden, 0.0), log_decay.masked_fill(hidden, 0.0))
    assert apart(found[:, 9:], delta_rule(*(x[:, 9:] for x in (q, k, v, beta, log_decay)))) < FP64


def test_the_future_changes_no_bit_of_the_past() -> None:
    inputs = [x.float() for x in problem(200)]
    before = delta_rule(*inputs)
    for x in inputs[:3]:
        x[:, 150:] *= -3.0
    assert torch.equal(delta_rule(*inputs)[:, :150], before[:, :150])


@pytest.mark.parametrize("decays", [True, False], ids=["gated", "no decay"])
def test_steps_are_the_rows(decays: bool) -> None:
    inputs = problem(20, decays)
    memory, rows = torch.zeros(B, H, K, W, dtype=torch.float64), []
    for t in range(20):
        token = [x[:, t] for x in inputs]
        decay = token[4][..., None] if decays else None
        o, memory = memory_step(memory, token[0], token[1], token[2], decay, token[3])
        rows.append(o)
    assert apart(torch.stack(rows, dim=1), delta_rule(*inputs)) < FP64
