"""The log-mean-exp is exact from u = 1e−9 to u = 1e4, and its gradients are posterior weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import kernels.numerics.log_mean_exp as module
from kernels.numerics.log_mean_exp import log_mean_exp, log_mix

SIZES = [1e-9, 1e-4, 0.1, 0.5, 2.0, 100.0, 1e4]


def problem(size: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, 6, 11, generator=draw, dtype=torch.float64)
    logits[:, :, 3] = -torch.inf  # a key that no row sees
    u = size * torch.randn(2, 11, 4, generator=draw, dtype=torch.float64)
    return logits.log_softmax(-1).to(dtype), u.to(dtype)


def by_loop(log_weights: Tensor, u: Tensor) -> Tensor:
    """fp64, one entry after another, without cancellation: log1p of the mean of expm1 around the largest visible u."""
    log_weights, u = log_weights.double(), u.double()
    out = torch.empty(*log_weights.shape[:-1], u.shape[-1], dtype=torch.float64)
    for b in range(out.shape[0]):
        for t in range(out.shape[1]):
            for j in range(out.shape[2]):
                p, values = log_weights[b, t].exp(), u[b, :, j]
                small = float(values.abs().max()) < 1.0
                out[b, t, j] = (p @ values.expm1()).log1p() if small else (log_weights[b, t] + values).logsumexp(0)
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "ulp"), [(torch.float64, 1e-15), (torch.float32, 5e-7)])
@pytest.mark.parametrize("elements", [1, 1 << 20], ids=["row by row", "at once"])
def test_the_log_mean_exp_is_exact_at_every_size(
    size: float, dtype: torch.dtype, ulp: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ELEMENTS", elements)
    log_weights, u = problem(size, dtype)
    got, wanted = log_mean_exp(log_weights, u).double(), by_loop(log_weights, u)
    # weights from rounded logarithms sum to one within an ulp or two, which a small u shows and a large one hides
    weights_off = (log_weights.double().exp().sum(-1, keepdim=True) - 1).abs() * min(size, 1.0)
    assert bool(((got - wanted).abs() <= 4 * ulp * size * 5 + weights_off).all())


@pytest.mark.parametrize("size", SIZES)
def test_its_gradients_are_the_posterior_weights(size: float) -> None:
    log_weights, u = problem(size, torch.float64)
    u.requires_grad_()
    log_mean_exp(log_weights, u)[:, 2].sum().backward()
    posterior = (log_weights[:, 2, :, None] + u.detach()).softmax(1)
    assert u.grad is not None
    assert float((u.grad - posterior).abs().max()) < 1e-10


@pytest.mark.parametrize("size", [0.01, 2.0])
def test_its_gradients_are_the_numerical_ones(size: float) -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    u = (size * torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, u: log_mean_exp(z.log_softmax(-1), u), (logits, u))


@pytest.mark.parametrize("size", SIZES)
def test_the_mean_of_two_equals_the_loop(size: float) -> None:
    draw = torch.Generator().manual_seed(3)
    f, u = (size * torch.randn(200, generator=draw, dtype=torch.float64) for _ in range(2))
    fraction = torch.rand(200, generator=draw, dtype=torch.float64)
    weights = torch.stack((1 - fraction, fraction), -1)
    wanted = by_loop(weights.log()[:, None], torch.stack((f, u), -1)[..., None])[:, 0, 0]
    got = log_mix(f, u, (1 - fraction).log(), fraction.log())
    assert float((got - wanted).abs().max()) <= 1e-13 * max(size, 1e-2)
