"""The read whose logits come from keys: equal to the loop for logits of any size, finite where no key is visible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.prefix_softmax import HIDDEN, prefix_softmax_read, prefix_softmax_step
from tests.tolerances import FP32_SCAN


def by_loops(logits: Tensor, v: Tensor, causal: bool, mask: Tensor | None = None) -> Tensor:
    B, T, H = logits.shape
    rows = []
    for b in range(B):
        for t in range(T):
            seen = [i for i in range(t + 1 if causal else T) if mask is None or bool(mask[b, i])]
            rows += [
                logits[b, seen, h].softmax(0) @ v[b, seen, h] if seen else torch.zeros_like(v[b, t, h])
                for h in range(H)
            ]
    return torch.stack(rows).view(B, T, H, -1)


def draw(tokens: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, tokens, 2, generator=g, dtype=torch.float64)
    return logits.requires_grad_(), torch.randn(2, tokens, 2, 3, generator=g, dtype=torch.float64).requires_grad_()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 20),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e3]),
    causal=st.booleans(),
    padding=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_equals_the_loop_in_value_and_gradient(
    tokens: int, scale: float, causal: bool, padding: int, seed: int
) -> None:
    logits, v = draw(tokens, scale, seed)
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[0, : min(padding, tokens - 1)] = False
    weight = (
        torch.randn(2, tokens, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        * mask[..., None, None]
    )
    both = [function(logits, v, causal, mask) * mask[..., None, None] for function in (prefix_softmax_read, by_loops)]
    torch.testing.assert_close(*both, rtol=1e-11, atol=1e-11)
    gradients = [torch.autograd.grad((out * weight).sum(), (logits, v)) for out in both]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("jump", [500.0, -500.0, 1e4])
def test_a_jump_of_the_logits_in_fp32_is_exact_before_and_after_it(jump: float) -> None:
    logits, v = draw(65, 1.0)
    shifted = (logits.detach() + jump * (torch.arange(65) >= 32)[None, :, None]).float()
    out = prefix_softmax_read(shifted, v.detach().float(), True)
    exact = by_loops(shifted.double(), v.detach(), True)
    assert (out - exact).abs().max() <= 2e-6


def test_length_4096_in_fp32_is_right_with_logits_in_the_thousands() -> None:
    g = torch.Generator().manual_seed(0)
    logits, v = (1e3 * torch.randn(1, 4096, 1, generator=g)), torch.randn(1, 4096, 1, 2, generator=g)
    wide, out = logits[0, :, 0].double(), prefix_softmax_read(logits, v, True)[0, :, 0]
    for t in range(0, 4096, 273):
        assert (out[t] - wide[: t + 1].softmax(0) @ v[0, : t + 1, 0].double()).abs().max() <= FP32_SCAN


def test_a_row_without_visible_keys_is_zero_and_its_gradient_finite() -> None:
    logits, v = draw(5, 100.0)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0] = False
    for causal in (True, False):
        out = prefix_softmax_read(logits, v, causal, mask)
        assert bool((out[0] == 0).all())
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.square().sum(), (logits, v)))


def test_decoding_equals_the_whole_read_even_at_large_logits() -> None:
    logits, v = (z.detach() for z in draw(33, 1e3))
    whole = prefix_softmax_read(logits, v, True)
    mass, y = torch.full((2, 2), HIDDEN, dtype=torch.float64), torch.zeros(2, 2, 3, dtype=torch.float64)
    for t in range(33):
        mass, y = prefix_softmax_step(logits[:, t], v[:, t], mass, y)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e2, 1e3, 5e3])
def test_decoding_in_fp32_keeps_the_digits_at_large_logits(size: float) -> None:
    draw = torch.Generator().manual_seed(3)
    logits, v = size * torch.randn(1, 1024, 2, generator=draw), torch.randn(1, 1024, 2, 4, generator=draw)
    whole = prefix_softmax_read(logits.double(), v.double(), causal=True)
    mass, y = torch.full((1, 2), HIDDEN, dtype=torch.float64), torch.zeros(1, 2, 4)
    for t in range(1024):
        mass, y = prefix_softmax_step(logits[:, t], v[:, t], mass, y)
        assert float((y - whole[:, t]).abs().max()) <= FP32_SCAN * float(whole.abs().max())
