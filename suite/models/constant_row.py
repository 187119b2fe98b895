"""The constant sequence of mixers that take their scores from one: drawn at random, or one fixed training example."""

from __future__ import annotations

import torch
from torch import Tensor

from backbones.mixers import registry
from suite.errors import UserError
from suite.models.build import Backbone
from tasks.base import InputSpec, SeriesInput, Task, TextInput

EXAMPLE_SEED = 0  # the same example for every run of a task


def give_constant(model: Backbone, task: Task, mixer: str, seed: int) -> None:
    """Sets the model's constant sequence where a layer reads one. A random one depends on the run's seed alone."""
    if not model.trunk.takes_constant_row:
        return
    source = getattr(registry.get(mixer), "constant", None)
    if source == "random":
        constant = _random(task.spec, torch.Generator().manual_seed(seed))
    elif source == "example":
        constant = next(task.train_batches(EXAMPLE_SEED, 1)).inputs[0]
        constant = constant[:, 0] if isinstance(task.spec, SeriesInput) else constant
    else:
        raise UserError(
            f"mixer {mixer!r} needs a constant row; its class attribute `constant` must say 'random' or 'example'"
        )
    model.set_constant(constant)


def _random(spec: InputSpec, generator: torch.Generator) -> Tensor:
    match spec:
        case TextInput():
            return torch.randint(spec.vocab, (spec.length,), generator=generator)
        case SeriesInput():
            return torch.randn(spec.look_back, generator=generator)
    return torch.randn(spec.channels, spec.height, spec.width, generator=generator)
