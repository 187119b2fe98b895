"""The forecaster's heads: their parameters are the head's, and forecasts follow the units of the series."""

from __future__ import annotations

import pytest
import torch

from backbones.base import Layer, TrunkConfig
from backbones.forecaster import Forecaster
from backbones.mixers import registry
from backbones.series_outputs import OUTPUTS, HeadKind


def forecaster(kind: HeadKind) -> Forecaster:
    softmax = registry.get("softmax")
    layer = Layer(softmax, softmax.Config(causal=False, heads=2), 24)
    model = Forecaster(TrunkConfig(16, 10, (layer,)), 40, 6, 3, 8, 4, kind=kind).double().eval()
    torch.manual_seed(0)
    model.reset_parameters()
    with torch.no_grad():
        model.embedding_gain.copy_(torch.tensor([1.5, -0.5, 1.0]))
        model.embedding_bias.copy_(torch.tensor([0.1, 0.0, -0.3]))
    return model


@pytest.mark.parametrize("kind", ["point", "quantile", "student-t"])
def test_a_series_in_other_units_gets_the_same_forecast_in_those_units(kind):
    """Up to the 1e-5 under the root of the instance norm, which these units make too small to matter."""
    model = forecaster(kind)
    x = 1e3 * torch.randn(2, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before, moved = model(x), model(7 * x - 4e3)
    assert before.shape == ((2, 6, 3) if kind == "point" else (2, 6, 3, OUTPUTS[kind]))
    expected = 7 * before - 4e3
    if kind == "student-t":
        expected = torch.stack([expected[..., 0], 7 * before[..., 1], before[..., 2]], dim=-1)
        assert before[..., 1].min() > 0
        assert before[..., 2].min() > 2
    assert torch.allclose(moved, expected, rtol=1e-7)


def test_a_point_forecast_is_the_heads_output_mapped_to_the_units_of_the_series():
    model = forecaster("point")
    x = torch.randn(1, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mean, std = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    normal = (x - mean) / std * model.embedding_gain + model.embedding_bias
    for channel in range(3):
        hidden = model.trunk(model._patches(normal[:, :, channel]))
        raw = model.head(hidden.flatten(1))[0]
        gain, bias = model.embedding_gain[channel] + 1e-10, model.embedding_bias[channel]
        expected = (raw - bias) / gain * std[0, 0, channel] + mean[0, 0, channel]
        assert torch.allclose(model(x)[0, :, channel], expected, rtol=1e-12)


def test_only_the_head_grows_with_the_kind():
    counts = {kind: {name: p.numel() for name, p in forecaster(kind).named_parameters()} for kind in OUTPUTS}
    for kind, sizes in counts.items():
        assert {n: s for n, s in sizes.items() if not n.startswith("head.")} == {
            n: s for n, s in counts["point"].items() if not n.startswith("head.")
        }
        assert sizes["head.weight"] == OUTPUTS[kind] * counts["point"]["head.weight"]
