"""The estimate of one run: time per step, memory per device and GPU hours, from the counted work and a device's rates.

Left out: loading data, validation, the test and checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.certificate import Certificate
from suite.planning.communication import Communication, Parallel, communication
from suite.planning.device_memory import DeviceMemory, Training, device_memory, largest_batch
from suite.planning.rates import Rates

#: Forward and backward FLOPs of a step over its forward FLOPs.
BACKWARD = 3
#: Bytes per parameter that AdamW and gradient clipping move: the optimiser reads weight, gradient and two moments and
#: writes three of them; the norm reads the gradient, scaling it reads and writes it.
UPDATE, EMA_UPDATE = 28 + 12, 12


@dataclass(frozen=True)
class Cluster:
    """The devices.

    name: of the device, as the user gave it.
    peak: FLOP/s of one, which the MFU refers to; None where there is no published figure.
    memory: bytes of one.
    link: bytes per second and device.
    """

    name: str
    gpus: int
    parallel: Parallel
    peak: float | None
    memory: float
    link: float


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Where one example does not fit into a device, there are no times.

    flops: of a training step of all devices.
    moved: bytes that operations of one device read and write in a step.
    examples: of one forward and backward pass on one device.
    passes: of a step; more than one where the device's part of the batch does not fit at once.
    largest_batch: examples of one pass that would fit.
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
    mfu: float | None

    @property
    def fits(self) -> bool:
        """Whether one example fits into a device."""
        return self.largest_batch > 0


def examples_per_device(config: RunConfig, gpus: int) -> int:
    """A device's part of the batch.

    Args:
        config: the run.
        gpus: number of devices.

    Returns:
        Examples.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    batch = config.train.batch_size
    if batch % gpus:
        nearest = -(-batch // gpus) * gpus
        raise UserError(
            f"plan: a batch of {batch} examples does not divide among {gpus} devices; choose a multiple of {gpus}: "
            f"--set train.batch_size={nearest}"
        )
    return batch // gpus


def forward_flops(certificate: Certificate) -> int:
    """Forward FLOPs of an example.

    Args:
        certificate: of the run.

    Returns:
        FLOPs of a sequence, an image or a window.
    """
    return certificate.flops * (certificate.length if certificate.flops_unit == "token" else 1)


def passes_of(config: RunConfig, training: Training, memory: float) -> tuple[int, int]:
    """How a device's part of the batch is divided.

    Args:
        config: the run.
        training: its model.
        memory: of the device.

    Returns:
        The passes of a step, and the most examples that one of them may have.
    """
    part, least = examples_per_device(config, training.gpus), config.train.accumulate
    most = largest_batch(training, memory, 1)
    if most < part or least > 1:
        most = largest_batch(training, memory, 2)
    return max(least, -(-part // max(most, 1))), most


def step_moved(config: RunConfig, training: Training, passes: int) -> float:
    """Bytes that one device's operations read and write in a step.

    Args:
        config: the run.
        training: its model.
        passes: of a step.

    Returns:
        Bytes, those of clipping and of the optimiser included.
    """
    part, work = examples_per_device(config, training.gpus), training.work
    update = (UPDATE + (EMA_UPDATE if training.ema else 0)) * training.total_parameters
    update /= training.gpus if training.parallel == "fsdp" else 1
    return passes * work.fixed.moved + part * work.per_example.moved + update


def estimate(
    config: RunConfig, certificate: Certificate, training: Training, cluster: Cluster, rates: Rates
) -> Estimate:
    """The estimate of a run.

    Args:
        config: the run.
        certificate: its counts.
        training: its model's work and memory.
        cluster: the devices.
        rates: of one device.

    Returns:
        Time, memory and cost.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    part = examples_per_device(config, cluster.gpus)
    passes, most = passes_of(config, training, cluster.memory)
    examples = -(-part // passes)
    flops = BACKWARD * forward_flops(certificate) * config.train.batch_size
    moved, operations = step_moved(config, training, passes), passes * training.work.of(examples).operations
    compute_s = rates.seconds(flops / cluster.gpus, moved, operations)
    sent = communication(
        cluster.parallel, training.total_parameters, certificate.depth, cluster.gpus, cluster.link, compute_s, passes
    )
    step_s = compute_s + sent.exposed
    run_s = config.train.steps * step_s
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
        mfu=flops / step_s / (cluster.peak * cluster.gpus) if cluster.peak else None,
    )
