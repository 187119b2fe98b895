"""Row-wise pieces of every block: the root-mean-square norm and the gated SiLU. Compiled on CPUs where there is a compiler.

rms_norm(x, gain) = x / sqrt(mean(x²) + eps) · gain          gated_silu([a, b]) = silu(a) · b
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels.cpu import rows as cpu
from kernels.cpu.call import takes


def rms_norm(x: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """Over the last dimension; a gain of another dtype than x is PyTorch's to promote."""
    if takes(x, gain_D):
        out: Tensor = cpu.RmsNorm.apply(x, gain_D, eps)
        return out
    return F.rms_norm(x, gain_D.shape, gain_D, eps)


def gated_silu(x: Tensor) -> Tensor:
    """`[…, 2F]` → `[…, F]`."""
    if takes(x):
        out: Tensor = cpu.GatedSilu.apply(x)
        return out
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up
