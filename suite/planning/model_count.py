"""A model counted once, for any number and kind of devices: parameters, FLOPs, and the work of its training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from backbones.base import Layer
from suite.config.run_config import ModelConfig, RunConfig
from suite.errors import UserError
from suite.models.budget import Plan
from suite.models.candidate import parse
from suite.models.certificate import count
from suite.models.inputs import adapter
from suite.models.masked import masked_flops
from suite.models.meta_device import meta_device
from suite.planning.step_work import StepWork, step_work
from tasks.base import Task


@dataclass(frozen=True)
class ModelCount:
    """The counts of one model.

    parameters: all numbers that it keeps, embeddings, head and frozen ones included.
    trainable: of them, those with a gradient.
    block_parameters: of the largest block, which FSDP gathers at once.
    depth: number of blocks.
    flops: of a forward pass of one example, by the formulas that certificates have.
    computed: of them, those that a causal mask leaves.
    tokens: that one example has: a sequence's length; 1 for an image or a window.
    work: of a training step.
    """

    parameters: int
    trainable: int
    block_parameters: int
    depth: int
    flops: int
    computed: int
    tokens: int
    work: StepWork

    @property
    def rest(self) -> int:
        """Upper bound of the parameters outside of the blocks: embeddings, positions and head."""
        return max(self.parameters - self.depth * self.block_parameters, 0)


def count_model(
    task: Task, shape: ModelConfig, layers: Sequence[Layer], precision: str, *, compiled: bool
) -> ModelCount:
    """Counts a model.

    Args:
        task: of the run; its data are not read.
        shape: of the model.
        layers: one per block, sized.
        precision: of the forward pass, fp32 or bf16.
        compiled: as for `step_work`.

    Returns:
        The counts.

    Raises:
        UserError: the task's loss takes no random batch.
    """
    spec = task.spec
    counts, inputs = count(spec, shape, tuple(layers)), adapter(spec)
    with meta_device():
        backbone = inputs.backbone(shape, layers)
    tokens = inputs.length if inputs.unit == "token" else 1
    return ModelCount(
        parameters=counts.total_parameters,
        trainable=_trainable(backbone),
        block_parameters=max(_trainable(block) for block in backbone.trunk.blocks),
        depth=counts.depth,
        flops=tokens * counts.flops,
        computed=tokens * (counts.flops - masked_flops(spec, shape.dim, layers)),
        tokens=tokens,
        work=step_work(task, shape, layers, precision, compiled=compiled),
    )


def checked_plan(config: RunConfig, task: Task) -> Plan:
    """The layers of a run and of its softmax reference.

    Args:
        config: the run.
        task: its task.

    Returns:
        The plan.

    Raises:
        UserError: it is a baseline, or its budget is not kept.
    """
    plan, _ = parse(config.mixer).check(config, task.spec)
    if not plan.layers:
        raise UserError(
            f"{config.mixer_name} is a baseline, whose steps are not counted; give mixers (suite list mixers)"
        )
    return plan


def _trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
