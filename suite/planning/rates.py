"""How fast a device works: FLOPs of matrix products, bytes that operations move, and operations that are issued.

Computing takes `FLOPs / products + bytes / traffic`, issuing takes `operations / issued`. A GPU computes while the
process issues, so that the longer of both counts; a processor does one after the other. On a GPU the rates follow from
published peaks and the assumed MFU of the softmax reference; on this machine's CPU they are measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from suite.planning.gpus import Gpu

#: Fraction of the published memory bandwidth that element-wise operations reach.
TRAFFIC = 0.8
#: Fraction of the published peak that large matrix products reach at most.
BEST_PRODUCTS = 0.8
#: Operations of PyTorch that a process issues per second: about 10 µs each, autograd included.
ISSUED = 1e5
#: The assumed MFU of the softmax reference. Published runs reached .21 to .46 (arXiv 2204.02311, table 3).
MFU = 0.35


@dataclass(frozen=True)
class Rates:
    """Work per second of one device.

    products: FLOPs of matrix products.
    traffic: bytes that operations read and write.
    issued: operations that the process starts.
    ahead: whether the device computes while the process starts the next operations.
    """

    products: float
    traffic: float
    issued: float = math.inf
    ahead: bool = True

    def seconds(self, flops: float, moved: float, operations: float = 0.0) -> float:
        """The time of some work.

        Args:
            flops: of matrix products, reads and scans.
            moved: bytes.
            operations: of PyTorch.

        Returns:
            Seconds.
        """
        computing, issuing = flops / self.products + moved / self.traffic, operations / self.issued
        return max(computing, issuing) if self.ahead else computing + issuing


def assumed_rates(gpu: Gpu, precision: str, mfu: float, work: tuple[float, float, float]) -> Rates:
    """The rates of a GPU at which the softmax reference would reach an MFU. Its memory traffic takes its time at the
    rate of the memory; what is left of the step goes to matrix products, which cannot exceed BEST_PRODUCTS of the peak.

    Args:
        gpu: its published figures.
        precision: of the forward pass.
        mfu: model FLOPs utilisation (arXiv 2204.02311, appendix B): FLOPs of the model over those of the peak.
        work: of a training step of the reference: FLOPs, those that are computed, and bytes.

    Returns:
        The rates; where the traffic leaves too little time, the reference's MFU is lower than the assumed one.
    """
    flops, computed, moved = work
    best, traffic = BEST_PRODUCTS * gpu.peak(precision), TRAFFIC * gpu.bandwidth
    left = flops / (mfu * gpu.peak(precision)) - moved / traffic
    products = min(computed / left, best) if left > 0 else best
    return Rates(products, traffic, ISSUED)
