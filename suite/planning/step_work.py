"""The work and the memory of a training step, counted on small copies of the model and scaled to the whole one.

A copy has one or two of the model's layers, at their full widths and length, and reads two or three examples. What a
step moves and holds is linear in the examples and in the layers of each kind, so four copies give it for any number of
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from functools import cache

import torch
from torch import Tensor

from backbones.base import Layer
from backbones.implementations import without_compiled_kernels
from suite.config.run_config import ModelConfig
from suite.errors import UserError, first_line
from suite.models.inputs import Backbone, adapter
from suite.planning.counting import Counting
from suite.planning.example_batches import example_batch
from suite.training.evaluate import autocast
from tasks.base import InputSpec, Task

#: Examples of the copies that are counted: PyTorch skips some copies of a single one.
EXAMPLES = (2, 3)


@dataclass(frozen=True)
class Amounts:
    """What a forward and a backward pass take, without the optimiser.

    moved: bytes that operations read and write.
    operations: their number.
    held_at_loss: the most bytes allocated at a time until the gradient of the hidden states is known, without
        parameters and their gradients.
    held_in_layers: the same from then on.
    """

    moved: float
    operations: float
    held_at_loss: float
    held_in_layers: float

    @property
    def held(self) -> float:
        """The most bytes allocated at a time."""
        return max(self.held_at_loss, self.held_in_layers)

    def plus(self, other: Amounts, times: float = 1.0) -> Amounts:
        """The sum with a multiple of another.

        Args:
            other: what is added.
            times: how often.

        Returns:
            The sum.
        """
        return Amounts(*(a + times * b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class StepWork:
    """A step's amounts as functions of the examples in it: `fixed` and `per_example` are those of the whole model,
    `one_layer_fixed` and `one_layer_per_example` those of a model with its first layer only.
    """

    fixed: Amounts
    per_example: Amounts
    one_layer_fixed: Amounts
    one_layer_per_example: Amounts

    def of(self, examples: int) -> Amounts:
        """The amounts of one forward and backward pass.

        Args:
            examples: in the batch.

        Returns:
            The amounts; the number of operations does not depend on the examples.
        """
        return self.fixed.plus(self.per_example, examples)

    def last_held(self, examples: int) -> float:
        """Bytes held when the backward pass reaches the first layer.

        Args:
            examples: in the batch.

        Returns:
            Bytes, without gradients.
        """
        return self.one_layer_fixed.plus(self.one_layer_per_example, examples).held_in_layers


def step_work(task: Task, shape: ModelConfig, layers: Sequence[Layer], precision: str, *, compiled: bool) -> StepWork:
    """Counts the work of a model's training step.

    Args:
        task: of the run; its data are not read.
        shape: of the model.
        layers: one per block, sized.
        precision: of the forward pass, fp32 or bf16.
        compiled: whether the compiled kernels of the CPU compute; otherwise PyTorch's operations are counted, which is
            what runs on a GPU, and large results are not computed.

    Returns:
        The work.

    Raises:
        UserError: the task's loss does not take a batch in the shapes of its inputs.
    """
    first = layers[0]

    def amounts(some: tuple[Layer, ...]) -> tuple[Amounts, Amounts]:
        one, two = (_counted(task, shape, some, examples, precision, compiled) for examples in EXAMPLES)
        slope = two.plus(one, -1)
        return one.plus(slope, -EXAMPLES[0]), slope

    _counted(task, shape, (first,), EXAMPLES[0], precision, compiled)  # tables of a length are made once in a process
    alone = amounts((first,))
    fixed, per_example = alone
    for kind in dict.fromkeys(layers):
        number = layers.count(kind) - (kind == first)
        if number:
            pair = amounts((first, kind))
            fixed = fixed.plus(pair[0].plus(alone[0], -1), number)
            per_example = per_example.plus(pair[1].plus(alone[1], -1), number)
    return StepWork(fixed, per_example, *alone)


def _counted(
    task: Task, shape: ModelConfig, layers: tuple[Layer, ...], examples: int, precision: str, compiled: bool
) -> Amounts:
    """One forward and backward pass of a copy of the model. A gradient is dropped as soon as it is complete."""
    batch = example_batch(task, examples)
    with Counting(computed=compiled):
        model = _built(task.spec, shape, layers)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
    kernels, at_loss = nullcontext() if compiled else without_compiled_kernels(), list[int]()
    with kernels, Counting(computed=compiled) as counting:

        def loss_is_differentiated(_: Tensor) -> None:
            at_loss.append(counting.peak)
            counting.peak = counting.live

        model.trunk.register_forward_hook(lambda *call: call[-1].register_hook(loss_is_differentiated) and None)
        with autocast(torch.device("cpu"), precision):
            outputs = model(batch.inputs)
        try:
            loss = task.loss(outputs.float(), batch)
        except Exception as error:  # a third party's loss may need other targets than those of its kind of input
            raise UserError(
                f"the loss of {task.name} takes no random batch, so its steps cannot be planned: {first_line(error)}"
            ) from None
        loss.backward()
    return Amounts(counting.moved, counting.operations, at_loss[0], counting.peak)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


@cache
def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _built(spec: InputSpec, shape: ModelConfig, layers: tuple[Layer, ...]) -> Backbone:
    model = adapter(spec).backbone(shape, layers)
    model.reset_parameters()
    if model.trunk.takes_constant_row:
        model.set_constant(adapter(spec).random_constant(_seeded()))
    return model
