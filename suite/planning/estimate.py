"""The estimate of one run: time per step, memory per device and GPU hours, from the counted work and a device's rates.

Left out: loading data, validation, the test and checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from suite.config.run_config import TrainConfig
from suite.errors import UserError
from suite.planning.communication import Communication, Parallel, communication
from suite.planning.device_memory import DeviceMemory, Training, device_memory, largest_batch
from suite.planning.model_count import ModelCount
from suite.planning.rates import Rates

#: Forward and backward FLOPs of a step over its forward FLOPs.
BACKWARD = 3
#: Bytes per parameter that AdamW and gradient clipping move: the optimiser reads weight, gradient and two moments and
#: writes three of them; the norm reads the gradient, scaling it reads and writes it.
UPDATE, EMA_UPDATE = 28 + 12, 12


@dataclass(frozen=True)
class Cluster:
    """The devices.

    peak: FLOP/s of one, which the MFU refers to.
    memory: bytes of one.
    link: bytes per second and device.
    """

    gpus: int
    parallel: Parallel
    peak: float
    memory: float
    link: float


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Where one example does not fit into a device, its times are those of passes with one.

    flops: of a training step of all devices, by the formulas of certificates.
    moved: bytes that operations of one device read and write in a step.
    operations: of PyTorch that one device starts in a step.
    examples: of one forward and backward pass on one device.
    passes: of a step; more than one where the device's part of the batch does not fit at once.
    largest_batch: examples of one pass that would fit.
    mfu: FLOPs over those that the devices' peak would give in the same time.
    """

    flops: float
    moved: float
    operations: float
    examples: int
    passes: int
    largest_batch: int
    memory: DeviceMemory
    communication: Communication
    compute_s: float
    step_s: float
    run_s: float
    gpu_hours: float
    mfu: float

    @property
    def fits(self) -> bool:
        """Whether one example fits into a device."""
        return self.largest_batch > 0


def examples_per_device(batch: int, gpus: int) -> int:
    """A device's part of the batch.

    Args:
        batch: examples of a step.
        gpus: number of devices.

    Returns:
        Examples.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    if batch % gpus:
        nearest = -(-batch // gpus) * gpus
        raise UserError(
            f"a batch of {batch} examples does not divide among {gpus} GPUs; give a multiple of {gpus} "
            f"(--set train.batch_size={nearest}), or another --gpus"
        )
    return batch // gpus


def passes_of(train: TrainConfig, training: Training, memory: float) -> tuple[int, int]:
    """How a device's part of the batch is divided.

    Args:
        train: the run's options of training.
        training: its model.
        memory: of the device, bytes.

    Returns:
        The passes of a step, and the most examples that one of them may have.
    """
    part, least = examples_per_device(train.batch_size, training.gpus), train.accumulate
    most = largest_batch(training, memory, 1)
    if most < part or least > 1:
        most = largest_batch(training, memory, 2)
    return min(max(least, -(-part // max(most, 1))), part), most


def step_moved(training: Training, part: int, passes: int) -> float:
    """Bytes that one device's operations read and write in a step.

    Args:
        training: the model, and how it is trained.
        part: the device's examples.
        passes: of a step.

    Returns:
        Bytes, those of clipping and of the optimiser included.
    """
    work = training.model.work
    update = (UPDATE + (EMA_UPDATE if training.ema else 0)) * training.model.trainable
    devices = training.gpus if training.parallel == "fsdp" else 1
    return passes * work.fixed.moved + part * work.per_example.moved + update / devices


def reference_work(reference: ModelCount, train: TrainConfig) -> tuple[float, float, float]:
    """What a step of the softmax reference takes with the whole batch on one device: the MFU is assumed of it.

    Args:
        reference: its counts.
        train: the run's options of training.

    Returns:
        FLOPs by the formulas, those that are computed, and bytes.
    """
    alone, batch = Training(reference, bool(train.ema)), train.batch_size
    return (BACKWARD * reference.flops * batch, BACKWARD * reference.computed * batch, step_moved(alone, batch, 1))


def estimate(train: TrainConfig, training: Training, cluster: Cluster, rates: Rates) -> Estimate:
    """The estimate of a run.

    Args:
        train: its options of training.
        training: its model's work and memory.
        cluster: the devices.
        rates: of one device.

    Returns:
        Time, memory and cost.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    model, part = training.model, examples_per_device(train.batch_size, cluster.gpus)
    passes, most = passes_of(train, training, cluster.memory)
    examples = -(-part // passes)
    moved, operations = step_moved(training, part, passes), passes * model.work.of(examples).operations
    compute_s = rates.seconds(BACKWARD * model.computed * part, moved, operations)
    sent = communication(cluster.parallel, model.trainable, model.depth, cluster.gpus, cluster.link, compute_s, passes)
    step_s = compute_s + sent.exposed
    flops, run_s = BACKWARD * model.flops * train.batch_size, train.steps * step_s
    return Estimate(
        flops=flops,
        moved=moved,
        operations=operations,
        examples=examples,
        passes=passes,
        largest_batch=most,
        memory=device_memory(training, examples, passes),
        communication=sent,
        compute_s=compute_s,
        step_s=step_s,
        run_s=run_s,
        gpu_hours=run_s * cluster.gpus / 3600,
        mfu=flops / step_s / (cluster.peak * cluster.gpus),
    )
