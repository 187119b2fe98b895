"""Batches in the shapes of a task's inputs and targets: planning reads no data."""

from __future__ import annotations

import torch

from tasks.base import Batch, ImageInput, SeriesInput, Task, TextInput


def example_batch(task: Task, size: int) -> Batch:
    """A batch like those of a task. A task that draws its data by a rule gives its own, since its loss may take few of
    the outputs; any other gets random values.

    Args:
        task: of the run.
        size: number of examples B.

    Returns:
        Inputs and targets, the same for the same arguments.
    """
    if task.synthetic:
        task.load()
        return next(task.train_batches(0, size))
    generator = torch.Generator().manual_seed(0)
    match spec := task.spec:
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
