"""The limits of the budget as numbers: 1 % of the total, 5 % of a mixer layer, 5 % of the feed-forward width; and the
FLOPs of a hybrid against a real count.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones.mixers import registry
from suite.config.run_config import ModelConfig
from suite.models import budget
from suite.models.certificate import OUTSIDE_BUDGET, count
from suite.models.inputs import adapter
from suite.models.resolve import resolve
from tests.backbones.contract.pool_mixer import (
    HidesNumbersInABuffer,
    HidesNumbersInAFrozenParameter,
    Pool,
    PoolConfig,
)
from tests.suite.models.test_budget import check, inputs, prepared

TOTAL, LAYER = 100_000, 10_000
CONTROL = next(name for name in registry.names() if registry.get(name).capabilities.pays_in_ffn)


@pytest.mark.parametrize(
    ("total", "layer", "matched", "paying"),
    [
        (100_000, 10_000, True, True),
        (100_999, 10_000, True, True),
        (101_001, 10_000, False, False),
        (99_001, 10_000, True, True),
        (98_999, 10_000, False, False),
        (100_000, 10_499, True, True),
        (100_000, 10_501, False, True),
        (100_000, 9_501, True, True),
        (100_000, 9_499, False, True),
        (100_999, 9_501, True, True),
        (101_001, 9_499, False, False),
    ],
)
def test_certificates_just_inside_and_outside_the_limits(monkeypatch, total, layer, matched, paying):
    """paying: whether a control that pays in the FFN, matched on the total only, is matched."""
    config, spec = prepared("fashion-mnist", "fem")
    plan, _ = check(config, spec)
    real = count(spec, config.model, plan.reference)

    def counts(_spec, _model, layers, _changed=0):
        ours = layers is plan.layers
        return replace(real, parameters=total if ours else TOTAL, mixer_parameters=layer if ours else LAYER)

    monkeypatch.setattr(budget, "count", counts)
    fem, control = registry.get("fem"), registry.get(CONTROL)
    assert (fem.capabilities.pays_in_ffn, control.capabilities.pays_in_ffn) == (False, True)
    for mixer, expected in ((fem, matched), (control, paying)):
        found = budget.certify(mixer, config, spec, plan)
        assert (found.matched, not found.reasons) == (expected, expected)
        assert (found.ratio, found.mixer_ratio) == (total / TOTAL, layer / LAYER)


@pytest.mark.parametrize(
    ("widths", "expected"), [(0, 1000), (49, 1049), (50, 1050), (51, 1050), (500, 1050), (-50, 950), (-51, 950)]
)
def test_the_feed_forward_width_moves_by_at_most_5_percent(widths, expected):
    model = ModelConfig(dim=64, heads=2, ffn_width=1000)
    assert budget._ffn_width(registry.get("fem"), widths * 3 * 64, model) == expected
    assert budget._ffn_width(registry.get(CONTROL), widths * 3 * 64, model) == 1000 + widths


@pytest.mark.parametrize("factor", [0.75, 1.25, 1.5, 4])
def test_a_width_factor_multiplies_the_parameters_that_are_really_built(factor):
    config, spec = prepared("sotu", "softmax", [f"width_factor={factor}"])
    plan, found = check(config, spec)
    model = adapter(spec).backbone(plan.shape, plan.layers)
    inside = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(OUTSIDE_BUDGET))
    assert inside / found.reference_parameters == pytest.approx(factor, rel=0.01)
    assert (found.ratio, found.dim) == (inside / found.reference_parameters, plan.shape.dim)
    assert plan.shape.dim == pytest.approx(config.model.dim * factor**0.5, rel=0.05)
    without_factor = plan.model_copy(update={"shape": config.model, "layers": plan.reference})
    assert budget.certify(registry.get("softmax"), config, spec, without_factor).reasons


def test_a_width_factor_is_a_rows_option_and_changes_no_earlier_hash():
    plain, curve = (prepared("sotu", "softmax", sets)[0] for sets in ([], ["width_factor=1.25"]))
    assert plain.group == curve.group
    assert plain.identity != curve.identity
    assert "width_factor" not in plain.recorded()["model"]


@pytest.mark.parametrize("layout", ["first", "last", "2,3", "even"])
def test_the_flops_of_a_hybrid_are_what_torch_counts(layout, monkeypatch):
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    sets = ["dim=32", "model.heads=2", "depth=4", "ffn_width=88", "length=256"]
    config = resolve(task="sotu", mixer="no-mixing", scale="board", sets=sets, hybrid=layout)
    spec = prepared("sotu", "softmax", ["length=256"])[1]
    plan, certificate = check(config, spec)
    model = adapter(spec).backbone(config.model, plan.layers)
    model.reset_parameters()
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        model(inputs(spec, 2))
    assert counter.get_total_flops() / (2 * 256) == pytest.approx(certificate.flops, rel=0.02)
    assert certificate.flops < 0.95 * certificate.reference_flops  # so a hybrid is not taken for its reference


@pytest.mark.parametrize("hiding", [HidesNumbersInABuffer, HidesNumbersInAFrozenParameter])
def test_numbers_in_buffers_and_frozen_parameters_are_counted(hiding: type[Pool]) -> None:
    config, spec = prepared("fashion-mnist", "softmax")
    plan, _ = check(config, spec)
    pooled = PoolConfig(causal=False, width=8)
    plain, more = (
        count(spec, plan.shape, tuple(replace(layer, mixer=mixer, config=pooled) for layer in plan.layers))
        for mixer in (Pool, hiding)
    )
    dim = plan.shape.dim
    assert more.mixer_parameters - plain.mixer_parameters == dim
    assert (
        more.parameters - plain.parameters == more.total_parameters - plain.total_parameters == dim * len(plan.layers)
    )
