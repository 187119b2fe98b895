"""The Taylor read: both implementations, their gradients, the features, and memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.taylor import feature_count, features, taylor_read
from tests.kernels.memory import LargestTensor
from tests.tolerances import FP32_SCAN, FP64


def by_loops(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
    B, T, H, d = q.shape
    out = torch.zeros(B, T, H, v.shape[-1], dtype=q.dtype)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = [i for i in range(t + 1 if causal else T) if mask is None or bool(mask[b, i])]
                if seen:
                    s = k[b, seen, h] @ q[b, t, h] / d**0.5
                    w = 1 + s + s**2 / 2
                    out[b, t, h] = (w / w.sum()) @ v[b, seen, h]
    return out


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3))
    return q, k, v


@settings(max_examples=16, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 12),
    causal=st.booleans(),
    linear=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    padding=st.integers(0, 3),
)
def test_sums_of_features_and_square_weights_equal_the_loop(
    tokens: int, causal: bool, linear: bool, scale: float, padding: int
) -> None:
    q, k, v = (scale * z for z in draw(2, tokens, 1, 4, seed=tokens))
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[0, : min(padding, tokens - 1)] = False
    out = taylor_read(q, k, v, causal, mask, linear)
    error = (out - by_loops(q, k, v, causal, mask)).abs().max()
    assert error <= 1e-9 * scale


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [63, 64, 65, 257])
def test_sums_of_features_equal_square_weights_in_value_and_gradient(tokens: int, causal: bool) -> None:
    inputs = draw(1, tokens, 2, 4)
    both = [taylor_read(*inputs, causal, None, linear) for linear in (True, False)]
    assert (both[0] - both[1]).abs().max() <= 1e-11
    gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in both]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() <= FP64 * b.abs().max()


def test_sums_of_features_are_right_at_length_4096_in_fp32() -> None:
    q, k, v = (z.detach() for z in draw(1, 4096, 1, 4))
    narrow = taylor_read(q.float(), k.float(), v.float(), True)
    q, k, v = (z[0, :, 0] for z in (q, k, v))
    for t in (0, 63, 64, 1023, 4095):
        s = k[: t + 1] @ q[t] / 2.0
        w = 1 + s + s**2 / 2
        assert (narrow[0, t, 0] - w / w.sum() @ v[: t + 1]).abs().max() <= FP32_SCAN


@settings(max_examples=20, deadline=None, derandomize=True)
@given(width=st.integers(1, 9), seed=st.integers(0, 99))
def test_products_of_features_are_the_polynomial(width: int, seed: int) -> None:
    q, k, _ = draw(width, seed=seed)
    s = q @ k / width**0.5
    assert features(q).shape == (feature_count(width),)
    torch.testing.assert_close(features(q) @ features(k), 1 + s + s**2 / 2, rtol=1e-12, atol=1e-12)


def test_sums_of_features_keep_neither_square_weights_nor_states_of_all_tokens() -> None:
    T, d = 1024, 4
    inputs = draw(1, T, 1, d, dtype=torch.float32)
    with LargestTensor() as made:
        taylor_read(*inputs, True).sum().backward()
    assert made.elements <= max(64 * 64, T * (d + 1))
