"""Batches of random values in the shapes of a task's inputs and targets: planning reads no data."""

from __future__ import annotations

import torch

from tasks.base import Batch, ImageInput, InputSpec, SeriesInput, TextInput


def random_batch(spec: InputSpec, size: int) -> Batch:
    """A batch with the shapes of a task's.

    Args:
        spec: the task's inputs and outputs.
        size: number of examples B.

    Returns:
        Random inputs and targets, the same for the same arguments.
    """
    generator = torch.Generator().manual_seed(0)
    match spec:
        case TextInput():
            ids_BT = torch.randint(spec.vocab, (size, spec.length + 1), generator=generator)
            return Batch(ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous())
        case ImageInput():
            shape = size, spec.channels, spec.height, spec.width
            return Batch(
                torch.randn(shape, generator=generator), torch.randint(spec.classes, (size,), generator=generator)
            )
        case SeriesInput():
            past, future = (size, spec.look_back, spec.channels), (size, spec.horizon, spec.channels)
            return Batch(torch.randn(past, generator=generator), torch.randn(future, generator=generator))
