"""The documents on adding a mixer and a backbone: their code runs, and their tables are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones import vit
from backbones.base import Layer
from backbones.contract.run import CHECKS
from backbones.mixers import registry
from suite.config.run_config import ModelConfig
from suite.models import budget, inputs
from suite.models.certificate import count
from tasks import specs

DOCS = Path(__file__).resolve().parents[2] / "docs"


def code_of(name: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text("utf-8"), re.M | re.S))


def test_the_table_of_checks_is_complete() -> None:
    text = (
        (DOCS / "adding-a-mixer.md").read_text("utf-8").partition("## What the contract checks")[2].partition("## ")[0]
    )
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == {check.id for check in CHECKS}


@pytest.fixture
def frame_input(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The spec of the document's example, with its adapter installed."""
    names: dict[str, Any] = {**vars(specs), **vars(vit), **vars(inputs)}  # what the three files import
    exec(compile(code_of("adding-a-backbone.md"), "adding-a-backbone.md", "exec", dont_inherit=True), names)
    monkeypatch.setitem(inputs._ADAPTERS, names["FrameInput"], names["_FrameAdapter"])
    return names["FrameInput"](features=3, length=10, classes=5)


@pytest.mark.parametrize("mixer", ["softmax", "fem", "random-qk"])
def test_the_backbone_of_the_example_is_counted_and_runs_with_any_mixer(frame_input: Any, mixer: str) -> None:
    model, cls = ModelConfig(dim=32, heads=2, depth=2, ffn_width=64), registry.get(mixer)
    options = cls.size(cls.Config(causal=False, heads=2), 32, 10, 4 * 32**2)
    layers = (Layer(cls, options, 64),) * 2
    assert count(frame_input, model, layers).length == 10
    made = inputs.adapter(frame_input)
    torch.manual_seed(0)
    backbone = made.backbone(model, layers)
    backbone.reset_parameters()
    if backbone.trunk.takes_constant_row:
        backbone.set_constant(made.random_constant(torch.Generator().manual_seed(0)))
    logits = backbone(torch.randn(4, 10, 3))
    assert logits.shape == (4, 5)
    assert bool(logits.isfinite().all())


def test_the_flops_of_the_example_outside_of_the_trunk_are_exact(frame_input: Any) -> None:
    model = ModelConfig(dim=32, heads=2, depth=2, ffn_width=64)
    backbone = inputs.adapter(frame_input).backbone(model, budget.reference_layers(model, causal=False))
    with FlopCounterMode(display=False) as counter:
        backbone.head(backbone.embedding(torch.randn(1, 10, 3)).mean(dim=1))
    assert inputs.adapter(frame_input).outside_flops(32) == counter.get_total_flops()
