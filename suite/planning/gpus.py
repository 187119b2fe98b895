"""The published figures of GPUs: dense peak rates without sparsity, memory, its bandwidth, and the links to others."""

from __future__ import annotations

from dataclasses import dataclass

from suite.errors import UserError, nearest
from suite.safe_text import quoted

#: GPUs of one machine; between machines the network carries the gradients.
PER_MACHINE = 8


@dataclass(frozen=True)
class Gpu:
    """One GPU as its vendor describes it.

    bf16, fp32: peak FLOP/s of dense matrix products in bf16 with fp32 sums, and of fp32 arithmetic.
    bandwidth: of its memory, bytes per second.
    memory: bytes, the vendor's GB read as 10⁹.
    link: bytes per second in one direction between GPUs of one machine.
    source: where the figures are published.
    """

    name: str
    title: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: float
    link: float
    source: str

    def peak(self, precision: str) -> float:
        """The peak rate in a precision.

        Args:
            precision: fp32 or bf16.

        Returns:
            FLOP/s.
        """
        return self.bf16 if precision == "bf16" else self.fp32


_H100 = "NVIDIA H100 Tensor Core GPU data sheet, SXM (the table's bf16 figure is with sparsity: half of it)"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet, SXM (the table's bf16 figure is with sparsity: half of it)"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet, SXM"
_L40S = "NVIDIA L40S data sheet; the link is PCIe 4.0 x16"
_4090 = "NVIDIA Ada GPU architecture white paper, appendix A; the link is PCIe 4.0 x16"
_MI300X = "AMD Instinct MI300X data sheet; the link is 7 Infinity Fabric links of 128 GB/s in both directions"
# fmt: off
GPUS = {gpu.name: gpu for gpu in (
    #    name          title             bf16       fp32      bandwidth memory  link     source
    Gpu("h100",       "H100 SXM 80 GB",  989.4e12,  67.0e12,  3.35e12,  80e9,  450e9,  _H100),
    Gpu("h200",       "H200 SXM 141 GB", 989.4e12,  67.0e12,  4.8e12,  141e9,  450e9,  _H200),
    Gpu("a100-80gb",  "A100 SXM 80 GB",  312.0e12,  19.5e12,  2.039e12, 80e9,  300e9,  _A100),
    Gpu("a100-40gb",  "A100 SXM 40 GB",  312.0e12,  19.5e12,  1.555e12, 40e9,  300e9,  _A100),
    Gpu("l40s",       "L40S 48 GB",      362.05e12, 91.6e12,  0.864e12, 48e9,   32e9,  _L40S),
    Gpu("rtx4090",    "RTX 4090 24 GB",  165.2e12,  82.6e12,  1.008e12, 24e9,   32e9,  _4090),
    Gpu("mi300x",     "MI300X 192 GB",  1307.4e12, 163.4e12,  5.3e12,  192e9,  448e9,  _MI300X),
)}
# fmt: on


def gpu_named(name: str) -> Gpu:
    """A GPU of the table.

    Args:
        name: its name.

    Returns:
        Its figures.

    Raises:
        UserError: it is not in the table.
    """
    if name in GPUS:
        return GPUS[name]
    guess = f"did you mean {near!r}? " if (near := nearest(name, GPUS)) else ""
    raise UserError(f"--gpu {quoted(name)} is unknown; {guess}allowed: {', '.join(GPUS)}")
