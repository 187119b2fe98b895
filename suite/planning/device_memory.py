"""The memory of one device while it trains, and the batch that fits into it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from suite.planning.communication import Parallel
from suite.planning.model_count import ModelCount

#: Bytes per parameter in fp32, and of AdamW's two moments.
FP32, MOMENTS = 4, 8
#: Fraction of a device's memory that tensors may take: the rest is for the driver, libraries and fragmentation.
USABLE = 0.92
MOST_EXAMPLES = 2**20


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device at the peak: in a step, or with FSDP in a validation, where each device has the whole model.

    parameters: the weights.
    gradients: of all weights, where they are held together with the activations.
    optimiser: AdamW's moments.
    ema: the averaged weights.
    selected: the weights of the best validation, which the trainer keeps on the device.
    communication: what FSDP gathers: embeddings and head for the whole step, the block that computes, the next one, and
        the gradient of the last; all weights while it validates. DDP's buckets hold the gradients themselves.
    activations: what the backward pass reads, logits and working memory.
    """

    parameters: float
    gradients: float
    optimiser: float
    ema: float
    selected: float
    communication: float
    activations: float

    @property
    def total(self) -> float:
        """The sum."""
        return float(sum(getattr(self, each.name) for each in fields(self)))


@dataclass(frozen=True)
class Training:
    """What a device's memory depends on besides the examples.

    ema: whether averaged weights are kept.
    selects: whether the best weights are kept; only a bare training step does not.
    """

    model: ModelCount
    ema: bool
    gpus: int = 1
    parallel: Parallel = "ddp"
    selects: bool = True


def device_memory(training: Training, examples: int, passes: int = 1) -> DeviceMemory:
    """The memory of a device.

    Args:
        training: the model, and how it is trained.
        examples: of one forward and backward pass on this device.
        passes: of a step. With one, on one device, a gradient is only there when the activations of later layers are
            gone; the peak is at the loss, or where the last gradients are made. With several, FSDP keeps whole
            gradients between them.

    Returns:
        Bytes by kind; the total is the peak.
    """
    model, sharded = training.model, training.parallel == "fsdp" and training.gpus > 1
    devices = training.gpus if sharded else 1
    held, trained = FP32 * model.parameters / devices, FP32 * model.trainable / devices
    gradients = FP32 * model.trainable if passes > 1 else trained
    activations = model.work.of(examples).held
    if passes == 1 and training.gpus == 1:
        activations, gradients = max((activations, 0.0), (model.work.last_held(examples), trained), key=sum)
    step = DeviceMemory(
        parameters=held,
        gradients=gradients,
        optimiser=trained * MOMENTS / FP32,
        ema=held if training.ema else 0.0,
        selected=held if training.selects else 0.0,
        communication=FP32 * (2 * model.rest + 3 * model.block_parameters) if sharded else 0.0,
        activations=activations,
    )
    if not (sharded and training.selects):
        return step
    validation = replace(step, gradients=0.0, communication=FP32 * model.parameters, activations=0.0)
    return max(step, validation, key=lambda each: each.total)


def largest_batch(training: Training, memory: float, passes: int) -> int:
    """The most examples of one pass that a device has memory for.

    Args:
        training: the model, and how it is trained.
        memory: of the device, bytes.
        passes: as for `device_memory`.

    Returns:
        Examples; 0 where the memory does not suffice for one.
    """
    few, many = 0, MOST_EXAMPLES + 1
    while many - few > 1:
        middle = (few + many) // 2
        fits = device_memory(training, middle, passes).total <= USABLE * memory
        few, many = (middle, many) if fits else (few, middle)
    return few
