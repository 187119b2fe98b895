"""The short convolution and its gradients equal a loop over positions and taps, also for very short sequences."""

from __future__ import annotations

import pytest
import torch

from kernels.short_conv import short_conv

pytestmark = pytest.mark.usefixtures("cpp_or_pytorch")


def by_loops(x: torch.Tensor, taps: torch.Tensor, causal: bool, residual: bool) -> torch.Tensor:
    T, rows = x.shape[1], []
    for t in range(T):
        row = x[:, t] if residual else torch.zeros_like(x[:, 0])
        for i in range(T):
            j = t - i if causal else abs(t - i)
            if 0 <= j < len(taps):
                row = row + taps[j] * x[:, i]
        rows.append(row)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", ""])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 13, 70])
def test_equals_the_loop_and_so_do_its_gradients(tokens: int, causal: bool, residual: bool) -> None:
    draw = torch.Generator().manual_seed(tokens)
    x, taps = (torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in ((2, tokens, 3), (4, 3)))
    weight = torch.randn(2, tokens, 3, generator=draw, dtype=torch.float64)
    fast, slow = short_conv(x, taps, causal, residual), by_loops(x, taps, causal, residual)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), (x, taps)) for y in (fast, slow)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_identity_tap_returns_its_input_bit_for_bit() -> None:
    x, taps = torch.randn(2, 9, 5), torch.zeros(4, 5)
    taps[0] = 1.0
    assert torch.equal(short_conv(x, taps, True), x)
    assert torch.equal(short_conv(x, taps, False), x)
