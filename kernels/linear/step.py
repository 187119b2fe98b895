"""One token of decoding under linear attention without a normaliser, and under the gated delta rule.

    S ← α S + k vᵀ,      o = Sᵀ q           the delta rule enters β (v − (α S)ᵀ k) instead of v

Shape letters: B sequences, H heads, k key channels and w value channels per head.
"""

from __future__ import annotations

from torch import Tensor

from kernels.cpu import steps


def memory_step(
    memory_BHkw: Tensor,
    q_BHk: Tensor,
    k_BHk: Tensor,
    v_BHw: Tensor,
    log_decay_BHc: Tensor | None = None,
    beta_BH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token: compiled, and in place, on CPUs where nothing is differentiated; elsewhere by PyTorch.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`; zeros before the first. It may be written.
        q_BHk: the token's query `[B, H, k]`.
        k_BHk: its key `[B, H, k]`.
        v_BHw: its value `[B, H, w]`.
        log_decay_BHc: log α, `[B, H, 1]` or `[B, H, k]`; None for no decay.
        beta_BH: β of the delta rule `[B, H]`; None where values enter as they are.

    Returns:
        o `[B, H, w]` in the dtype of q, and S after the token in that of S.
    """
    o_BHw = steps.memory_step(memory_BHkw, q_BHk, k_BHk, v_BHw, log_decay_BHc, beta_BH)
    if o_BHw is not None:
        return o_BHw, memory_BHkw
    after = memory_BHkw.to(q_BHk.dtype)
    if log_decay_BHc is not None:
        after = after * log_decay_BHc.exp()[..., None].to(q_BHk.dtype)
    if beta_BH is not None:
        v_BHw = beta_BH[..., None].to(q_BHk.dtype) * (v_BHw - (k_BHk[:, :, None] @ after)[:, :, 0])
    after = after + k_BHk[..., None] * v_BHw[:, :, None]
    return (q_BHk[:, :, None] @ after)[:, :, 0], after.to(memory_BHkw.dtype)
