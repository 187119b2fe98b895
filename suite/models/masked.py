"""What a causal mask spares: formulas count attention in full, kernels compute half of it."""

from __future__ import annotations

from collections.abc import Sequence

from backbones.base import Layer
from suite.models.inputs import adapter
from tasks.base import InputSpec


def masked_flops(spec: InputSpec, dim: int, layers: Sequence[Layer]) -> int:
    """The part of the counted FLOPs that a causal mask makes superfluous: a position sees half of the others on
    average, so what grows with the length counts at half of it.

    Args:
        spec: the task's inputs and outputs.
        dim: model width D.
        layers: of the model, sized.

    Returns:
        FLOPs of a forward pass per unit of the task; 0 where no mixer is causal or grows with the length.
    """
    inputs, saved = adapter(spec), 0
    for layer in layers:
        if getattr(layer.config, "causal", False):
            full, half = (
                layer.mixer.cost(layer.config, dim, length).flops
                for length in (inputs.length, (inputs.length + 1) // 2)
            )
            saved += full - half
    return inputs.positions * saved
