"""Row-wise pieces of every block: the root-mean-square norm and the SwiGLU. Compiled on CPUs where there is a compiler.

rms_norm(x, gain) = x / sqrt(mean(x²) + eps) · gain          swiglu(x, [G; U], D) = (silu(x Gᵀ) · x Uᵀ) Dᵀ   (arXiv
2002.05202)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cpu import rows as cpu
from kernels.cpu.call import multiplies, takes


def rms_norm(x: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """Over the last dimension; a gain of another dtype than x is PyTorch's to promote."""
    if takes("*D D", x, gain_D):
        out: Tensor = cpu.RmsNorm.apply(x, gain_D, eps)
        return out
    return F.rms_norm(x, gain_D.shape, gain_D, eps)


def swiglu(x: Tensor, up_2FD: Tensor, down_DF: Tensor) -> Tensor:
    """`[…, D]` → `[…, D]`."""
    if (
        len(up_2FD) == 2 * down_DF.shape[-1]
        and multiplies("*D UD DF", x, up_2FD, down_DF)
        and not torch.is_autocast_enabled("cpu")
    ):
        out: Tensor = cpu.SwiGlu.apply(x, up_2FD, down_DF)
        return out
    gate, up = F.linear(x, up_2FD).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down_DF)
