"""Compiled steps of decoding equal PyTorch's, at any values, and leave the state before the token as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.cpu import decoding
from kernels.cpu.call import pytorch_only
from kernels.linear import exact as linear
from kernels.selective import exact as selective

B, H, K, D, N = 2, 3, 5, 7, 4
STEPS = 12
SCALES = (0.1, 3.0, 30.0)
#: Of max(1, |value|): log-weights and exponents reach 100 here, whose rounding is what PyTorch rounds by too.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-5}

Stepped = tuple[Tensor, Tensor | None, dict[str, Tensor]]

pytestmark = pytest.mark.usefixtures("compiled_kernels")


class Draws:
    """Random tensors of one dtype, the same at each run."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.generator = dtype, torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale).to(self.dtype)


def linear_inputs(draw: Draws, scale: float, decay: int, free: bool) -> tuple[Any, ...]:
    log_decay = None if not decay else -draw(B, H, 1, decay, scale=scale**2).abs()
    u = draw(B, H, 1, D, scale=scale) if free else None
    return draw(B, H, 1, K, scale=scale), draw(B, H, 1, K, scale=scale), log_decay, draw(B, H, 1, D), u


def selective_inputs(draw: Draws, scale: float, width: int, free: bool) -> tuple[Any, ...]:
    rates, log_skip = -draw(N, width, scale=scale).abs(), draw(width)
    u = draw(B, width, scale=scale) if free else None
    return draw(B, width), rates, draw(B, N, scale=scale), draw(B, N, scale=scale), log_skip, draw(B, width), u


def error(got: Tensor, wanted: Tensor) -> float:
    return float(((got - wanted).abs() / wanted.abs().clamp(min=1)).max())


def compare(step: Callable[..., Stepped], state: dict[str, Tensor], inputs: Callable[[], tuple[Any, ...]]) -> float:
    """The largest error over some steps, each from the same state."""
    worst = 0.0
    for _ in range(STEPS):
        given, before = inputs(), {name: x.clone() for name, x in state.items()}
        with torch.no_grad():
            ours = step(state, *given)
            with pytorch_only():
                theirs = step(state, *given)
        assert all(torch.equal(state[name], x) for name, x in before.items()), "the state before the token has changed"
        assert ours[2].keys() == theirs[2].keys()
        pairs = [(ours[0], theirs[0]), (ours[1], theirs[1]), *((ours[2][name], theirs[2][name]) for name in ours[2])]
        for got, wanted in pairs:
            assert (got is None) == (wanted is None)
            if got is not None and wanted is not None:
                assert got.shape == wanted.shape
                worst = max(worst, error(got, wanted))
        state = theirs[2]
    return worst


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("free", [False, True], ids=["mean", "free energy"])
@pytest.mark.parametrize("decay", [0, 1, K], ids=["no decay", "one per head", "one per channel"])
@pytest.mark.parametrize("scale", SCALES)
def test_a_step_of_linear_attention_equals_pytorchs(scale, decay, free, dtype):
    draw = Draws(dtype)
    state = linear.empty_state(B, H, K, D, draw(0), free)
    assert compare(linear.exact_step, state, lambda: linear_inputs(draw, scale, decay, free)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("free", [False, True], ids=["mean", "free energy"])
@pytest.mark.parametrize("width", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("scale", SCALES)
def test_a_step_of_the_selective_scan_equals_pytorchs(scale, width, free, dtype):
    draw = Draws(dtype)
    state = selective.empty_state(B, N, width, draw(0), free)
    assert compare(selective.exact_step, state, lambda: selective_inputs(draw, scale, width, free)) <= TOLERANCE[dtype]


def test_inputs_in_any_layout_give_the_same_step():
    draw = Draws(torch.float64)
    inputs = selective_inputs(draw, 1.0, D, True)
    state = selective.empty_state(B, N, D, draw(0), True)
    turned = [x.t().contiguous().t() if x.dim() == 2 else x for x in inputs]
    with torch.no_grad():
        plain, other = selective.exact_step(state, *inputs), selective.exact_step(state, *turned)
    assert plain[1] is not None
    assert other[1] is not None
    assert torch.equal(plain[0], other[0])
    assert torch.equal(plain[1], other[1])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("change", ["a hidden token", "a decay of e^-1000", "huge exponents", "tiny exponents"])
def test_a_step_of_linear_attention_equals_pytorchs_at_the_extremes(change, dtype):
    draw = Draws(dtype)

    def inputs() -> tuple[Any, ...]:
        log_q, log_k, log_decay, v, u = linear_inputs(draw, 1.0, K, True)
        if change == "a hidden token":
            log_k, log_decay = torch.full_like(log_k, -1e9), torch.zeros_like(log_decay)
        elif change == "a decay of e^-1000":
            log_decay = torch.full_like(log_decay, -1000.0)
        else:
            u = u * (1e4 if change == "huge exponents" else 1e-9)
        return log_q, log_k, log_decay, v, u

    state = linear.empty_state(B, H, K, D, draw(0), True)
    with torch.no_grad(), pytorch_only():
        state = linear.exact_step(state, *linear_inputs(draw, 1.0, K, True))[2]
    assert compare(linear.exact_step, state, inputs) <= TOLERANCE[dtype]


def test_tiny_exponents_keep_their_relative_precision():
    draw = Draws(torch.float32)
    log_q, log_k, log_decay, v, u = linear_inputs(draw, 1.0, 1, True)
    state = linear.empty_state(B, H, K, D, v, True)
    with torch.no_grad():
        for _ in range(3):
            _, found, state = linear.exact_step(state, log_q, log_k, log_decay, v, 1e-6 * u)
    assert found is not None
    # every token has the same u, so its log-mean-exp is u
    assert float((found / (1e-6 * u) - 1).abs().max()) <= 1e-5


@pytest.mark.parametrize("pytorch", [False, True], ids=["compiled", "pytorch"])
def test_an_exponent_that_outgrows_its_tiny_weight_counts(pytorch):
    """Weights below e^-80 are taken for zero, but not where their exponents make up for them."""
    with pytorch_only() if pytorch else nullcontext():
        _outgrown()


def _outgrown() -> None:
    v = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    for gap in (75.0, 79.0, 81.0, 85.0, 100.0, 300.0):
        state = linear.empty_state(1, 1, 1, 2, v, True)
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        with torch.no_grad():
            state = linear.exact_step(state, zero, zero - gap, None, v, v + gap - 2)[2]
            _, found, after = linear.exact_step(state, zero, zero, None, v, v)
        # two tokens of weights e^-gap and 1, of exponents gap - 2 and 0
        wanted = torch.log1p(torch.exp(v - 2)) - torch.log1p(torch.exp(v - gap))
        assert found is not None
        assert float((found - wanted).abs().max()) <= 1e-12
        assert float((after["f_BHkd"] - wanted).abs().max()) <= 1e-12


def test_a_broken_value_is_shown_and_not_hidden():
    draw = Draws(torch.float32)
    log_q, log_k, log_decay, v, _ = linear_inputs(draw, 1.0, 1, False)
    log_k[0, 0, 0, 2] = float("nan")
    with torch.no_grad():
        mu, _, after = linear.exact_step(linear.empty_state(B, H, K, D, v, False), log_q, log_k, log_decay, v, None)
    assert mu[0, 0].isnan().all()
    assert after["n_BHk"][0, 0, 2].isnan()
    assert mu[1].isfinite().all()


def test_a_step_that_is_differentiated_runs_in_pytorch():
    draw = Draws(torch.float64)
    log_q, log_k, log_decay, v, u = linear_inputs(draw, 1.0, 1, True)
    state = linear.empty_state(B, H, K, D, v, True)
    assert decoding.linear_step(state, log_q, log_k, log_decay, v, u) is not None
    assert decoding.linear_step(state, log_q.requires_grad_(), log_k, log_decay, v, u) is None
    mu, _, _ = linear.exact_step(state, log_q, log_k, log_decay, v, u)
    assert mu.requires_grad


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_step_is_the_same_on_any_number_of_threads(threads):
    draw, before = Draws(torch.float32), torch.get_num_threads()
    state = linear.empty_state(64, H, 32, 64, draw(0), True)
    q, k, v, u = (draw(64, H, 1, width) for width in (32, 32, 64, 64))
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            with torch.no_grad():
                found.append(linear.exact_step(state, q, k, None, v, u)[:2])
    finally:
        torch.set_num_threads(before)
    assert all(
        one is not None and many is not None and torch.equal(one, many) for one, many in zip(*found, strict=True)
    )
