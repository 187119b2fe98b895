"""Small backbones in fp64 in which every parameter has an effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from backbones.base import Layer, Trunk, TrunkConfig
from backbones.decoder import Decoder
from backbones.forecaster import Forecaster, patch_count
from backbones.mixers import registry
from backbones.vit import VisionTransformer, patch_grid

DIM, FFN, HEADS = 16, 40, 2
M = TypeVar("M", Decoder, VisionTransformer, Forecaster, Trunk)


def layer(mixer: str = "softmax", *, causal: bool = True, length: int = 12) -> Layer:
    cls = registry.get(mixer)
    budget = (
        registry.get("softmax").cost(registry.get("softmax").Config(causal=causal, heads=HEADS), DIM, length).parameters
    )
    return Layer(cls, cls.size(cls.Config(causal=causal, heads=HEADS), DIM, length, budget), FFN)


def trunk(*mixers: str, length: int = 12, causal: bool = True, **more: float) -> TrunkConfig:
    return TrunkConfig(DIM, length, tuple(layer(m, causal=causal, length=length) for m in mixers), **more)


def decoder(*mixers: str, **more: Any) -> Decoder:
    return ready(Decoder(trunk(*mixers, **more), vocab=11))


def vit(height: int, width: int, patch: int, *mixers: str, **more: float) -> VisionTransformer:
    rows, columns = patch_grid(height, width, patch)
    config = trunk(*(mixers or ("softmax",)), length=rows * columns, causal=False, **more)
    return ready(VisionTransformer(config, 2, height, width, patch, classes=5))


def forecaster(look_back: int = 40, patch: int = 8, stride: int = 4, *mixers: str, **more: float) -> Forecaster:
    config = trunk(*(mixers or ("softmax",)), length=patch_count(look_back, patch, stride), causal=False, **more)
    return ready(Forecaster(config, look_back, 6, 3, patch, stride))


def ready(model: M) -> M:
    """Initial parameters plus noise: one that starts at zero (or one) must not hide what it multiplies."""
    model.reset_parameters()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.double().eval()


@torch.no_grad()
def assert_steps_equal_forward(model: Decoder) -> None:
    ids = torch.randint(11, (2, 12))
    states, steps = model.init_state(2, 12), []
    for t in range(12):
        logits, states = model.step(ids[:, t], states)
        steps.append(logits)
    assert torch.allclose(torch.stack(steps, 1), model(ids), rtol=0, atol=1e-10)


BACKBONES: dict[str, Callable[..., tuple[Any, Tensor]]] = {
    "decoder": lambda *mixers, **more: (decoder(*mixers, **more), torch.randint(11, (3, 12))),
    "vit": lambda *mixers, **more: (vit(9, 12, 3, *mixers, **more), torch.randn(3, 2, 9, 12, dtype=torch.float64)),
    "forecaster": lambda *mixers, **more: (
        forecaster(40, 8, 4, *mixers, **more),
        torch.randn(3, 40, 3, dtype=torch.float64),
    ),
}
