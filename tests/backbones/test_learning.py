"""Every built-in mixer learns: a few steps on one batch lower the loss, as a language model and as a forecaster."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from backbones.base import Layer, TrunkConfig
from backbones.decoder import Decoder
from backbones.forecaster import Forecaster, patch_count
from backbones.mixers import registry
from backbones.options import CanonPlaces
from tests.backbones.small_models import DIM, FFN, HEADS

T, STEPS = 12, 25
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
CAUSAL = [name for name in BUILT_IN if registry.get(name).capabilities.causal]
BIDIRECTIONAL = [name for name in BUILT_IN if registry.get(name).capabilities.bidirectional]
PLACES: tuple[CanonPlaces, ...] = ("none", "AC")


def trunk(name: str, length: int, causal: bool, places: CanonPlaces) -> TrunkConfig:
    """Two equal layers; 7 D² per mixer, so that every mixer has a size."""
    mixer = registry.get(name)
    options = mixer.size(mixer.Config(causal=causal, heads=HEADS), DIM, length, 7 * DIM**2)
    return TrunkConfig(DIM, length, (Layer(mixer, options, FFN, places),) * 2)


def losses(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    """The losses before each step on the one batch. Every parameter has moved after the last one."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    start, found = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}, []
    for _ in range(STEPS):
        outputs = model(inputs)
        loss = (
            (outputs - targets).square().mean()
            if targets.is_floating_point()
            else cross_entropy(outputs.flatten(0, -2), targets.flatten())
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    still = [name for name, p in model.named_parameters() if p.requires_grad and torch.equal(p, start[name])]
    assert not still
    return found


def assert_falls(model: Decoder | Forecaster, inputs: Tensor, targets: Tensor) -> None:
    model.reset_parameters()
    found = losses(model, inputs, targets)
    assert found[-1] < 0.8 * found[0], found
    assert max(found) < 1.5 * found[0], found


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", CAUSAL)
def test_a_language_model_with_any_mixer_learns_one_batch(name: str, places: CanonPlaces) -> None:
    torch.manual_seed(0)
    model = Decoder(trunk(name, T, True, places), vocab=11)
    if model.trunk.takes_constant_row:
        model.set_constant(torch.arange(T) % 11)
    ids = torch.randint(11, (4, T + 1))
    assert_falls(model, ids[:, :-1], ids[:, 1:])


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_a_forecaster_with_any_mixer_learns_one_batch(name: str, places: CanonPlaces) -> None:
    torch.manual_seed(0)
    model = Forecaster(trunk(name, patch_count(40, 8, 4), False, places), 40, 6, 3, 8, 4)
    assert_falls(model, torch.randn(4, 40, 3), torch.randn(4, 6, 3))
