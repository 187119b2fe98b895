"""The series backbone: patches, reversible norm and head."""

from __future__ import annotations

import math

import pytest
import torch

from backbones.forecaster import Forecaster, TokenBatchNorm, patch_count
from tests.backbones.small_models import forecaster, trunk


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("look_back", "patch", "stride"),
    [(336, 16, 8), (96, 16, 8), (40, 8, 3), (40, 7, 9), (16, 16, 8), (17, 16, 16), (5, 1, 1)],
)
def test_a_forecaster_accepts_any_patch_and_stride_and_reads_the_newest_values_last(look_back, patch, stride):
    model = forecaster(look_back, patch, stride, "no-mixing")
    window = torch.randn(2, look_back, 3, dtype=torch.float64)
    assert model(window).shape == (2, 6, 3)
    seen = []
    hook = model.embedding.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(window)
    hook.remove()
    [patches] = seen
    assert patches.shape == (6, patch_count(look_back, patch, stride), patch)
    series = window[0, :, 0]
    newest = (series[-1] - series.mean()) / (series.var(correction=0) + 1e-5).sqrt() * model.embedding_gain[
        0
    ] + model.embedding_bias[0]
    assert torch.allclose(patches[0, -1, -1], newest, rtol=0, atol=1e-12)


def test_a_forecast_follows_an_affine_change_of_a_channel():
    """`forecast(a·x + b) = a·forecast(x) + b`, up to the ε = 1e-5 in the variance, as the variances are near 10⁶."""
    model = forecaster()
    with torch.no_grad():
        model.embedding_gain.copy_(torch.tensor([0.5, 1.5, 2.0]))
        model.embedding_bias.copy_(torch.tensor([-0.3, 0.0, 0.7]))
    window = 1e3 * torch.randn(2, 40, 3, dtype=torch.float64)
    scale, shift = (
        torch.tensor([3.0, 0.5, 10.0], dtype=torch.float64),
        torch.tensor([-100.0, 5e3, 0.0], dtype=torch.float64),
    )
    expected = model(window) * scale + shift
    assert torch.allclose(model(scale * window + shift), expected, rtol=1e-9, atol=1e-6)


def test_a_head_of_zeros_forecasts_what_the_norm_removed():
    model = forecaster()
    window = torch.randn(2, 40, 3, dtype=torch.float64) + 5
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.embedding_gain.copy_(torch.tensor([0.5, 1.5, 2.0]))
        model.embedding_bias.copy_(torch.tensor([-0.3, 0.0, 0.7]))
    std = (window.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = window.mean(1, keepdim=True) - model.embedding_bias / (model.embedding_gain + 1e-10) * std
    assert torch.allclose(model(window), expected.expand(2, 6, 3), rtol=0, atol=1e-12)


def test_the_forecast_of_a_constant_channel_is_finite():
    window = torch.ones(2, 40, 3, dtype=torch.float64)
    assert forecaster()(window).isfinite().all()


def test_with_head_scale_zero_the_initial_forecast_is_the_mean_of_the_window():
    model = Forecaster(trunk("softmax", length=10, causal=False), 40, 6, 3, 8, 4, head_scale=0.0).double()
    model.reset_parameters()
    x = torch.randn(2, 40, 3, dtype=torch.float64)
    assert torch.allclose(model(x), x.mean(1, keepdim=True).expand(2, 6, 3), rtol=0, atol=1e-12)


def test_tokens_are_normalised_over_the_batch_and_keep_their_relative_size():
    norm = TokenBatchNorm(4).double()
    x = 3 + 5 * torch.randn(6, 7, 4, dtype=torch.float64)
    normal = norm(x)
    assert torch.allclose(
        normal, (x - x.mean((0, 1))) / (x.var((0, 1), correction=0) + norm.eps).sqrt(), rtol=0, atol=1e-12
    )
    norm.eval()
    assert torch.allclose(norm(2 * x) - norm(x), norm(x) - norm(torch.zeros_like(x)), rtol=0, atol=1e-12)
    norm.reset_parameters()
    assert torch.allclose(norm(x), x / math.sqrt(1 + norm.eps), rtol=0, atol=1e-12)


def test_a_forecasters_final_norm_is_over_the_batch():
    model = forecaster()
    assert isinstance(model.trunk.norm, TokenBatchNorm)
    window = torch.randn(2, 40, 3, dtype=torch.float64)
    before = model(window)
    model.train()
    model(window)  # updates the running statistics
    assert not torch.allclose(model.eval()(window), before)
