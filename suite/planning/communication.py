"""What several devices exchange in a step, and how much of that time the computation hides: an estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from suite.planning.gpus import PER_MACHINE, Gpu

Parallel = Literal["ddp", "fsdp"]
#: Bytes per second and GPU between machines: one port of 400 Gb/s.
NETWORK = 50e9
#: Fraction of a link's rate that ring collectives reach.
COLLECTIVES = 0.75
#: Bytes of a parameter and of a gradient when they are sent: fp32.
SENT = 4


@dataclass(frozen=True)
class Communication:
    """Seconds per step and device.

    seconds: of all collectives.
    hidden: of them, while the device computes.
    """

    seconds: float
    hidden: float

    @property
    def exposed(self) -> float:
        """What they add to the step."""
        return self.seconds - self.hidden


def communication(
    parallel: Parallel, parameters: int, depth: int, gpus: int, link: float, compute_s: float, passes: int
) -> Communication:
    """The collectives of a step. DDP adds up gradients once, while the last backward pass runs, in a ring: each device
    sends 2(N−1)/N of them. FSDP gathers the parameters for each forward and each backward pass and scatters the
    gradients of the last one: (2·passes + 1)(N−1)/N, while all of it runs. One part of `depth + 1` is never hidden: the
    last gradients, or the first parameters.

    Args:
        parallel: ddp or fsdp.
        parameters: of the model.
        depth: number of layers.
        gpus: number of devices N.
        link: bytes per second and device.
        compute_s: seconds that a device computes in a step.
        passes: forward and backward passes of a step.

    Returns:
        The time of the collectives, and the part of it that is hidden.
    """
    if gpus == 1:
        return Communication(0.0, 0.0)
    once = (gpus - 1) / gpus * SENT * parameters / (COLLECTIVES * link)
    backward_s = 2 / 3 * compute_s / passes
    total, window = (2 * once, backward_s) if parallel == "ddp" else ((2 * passes + 1) * once, compute_s)
    return Communication(total, min(window, total * depth / (depth + 1)))


def link_of(gpu: Gpu, gpus: int, network: float = NETWORK) -> float:
    """The rate of the slowest link that collectives use.

    Args:
        gpu: the device.
        gpus: how many.
        network: between machines, bytes per second and GPU.

    Returns:
        Bytes per second and device, in one direction.
    """
    return gpu.link if gpus <= PER_MACHINE else min(gpu.link, network)
