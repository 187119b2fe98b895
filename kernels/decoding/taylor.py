"""One token of attention with the second Taylor polynomial, compiled: rotation and features of q and k, the running
sums and their ratio, for all heads. `kernels.taylor` has the formulas.

Shape letters: B sequences, H heads of d channels, F features, w = d + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.decoding.running import run, steps_with
from kernels.taylor import LEAST_MASS, feature_count


def taylor_step(sums_BHFw: Tensor, z_BC: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor | None:
    """One token; the sums are written in place.

    Args:
        sums_BHFw: Σ φ(k) ⊗ [v, 1] over the tokens before `[B, H, F, d + 1]`.
        z_BC: q, k and v of all heads, before the rotation `[B, 3·H·d]`.
        turn: cosines and sines `[d/2]` of the token's angles.

    Returns:
        The read `[B, H·d]`; None where the compiled library does not take the call, and nothing has changed.
    """
    if not steps_with((sums_BHFw,), z_BC, *turn):
        return None
    B, H, F, w = sums_BHFw.shape
    d = w - 1
    agree = z_BC.shape == (B, 3 * H * d) and d % 2 == 0 and feature_count(d) == F
    if not agree or any(x.shape != (d // 2,) for x in turn):
        return None
    y_BE = torch.empty((B, H * d), dtype=z_BC.dtype)
    tensors = [z_BC.contiguous(), *(x.contiguous() for x in turn), y_BE]
    run("taylor_step", [sums_BHFw], tensors, [LEAST_MASS], [B, H, d])
    return y_BE
