"""One token of decoding under linear attention without a normaliser, and under the gated delta rule.

    S ← α S + k vᵀ,      o = Sᵀ q           the delta rule enters β (v − (α S)ᵀ k) instead of v

Shape letters: B sequences, H heads, k key channels and w value channels per head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels.decoding.running import run, steps_with


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
    o_BHw = compiled_memory_step(memory_BHkw, q_BHk, k_BHk, v_BHw, log_decay_BHc, beta_BH)
    if o_BHw is not None:
        return o_BHw, memory_BHkw
    after = memory_BHkw.to(q_BHk.dtype)
    if log_decay_BHc is not None:
        after = after * log_decay_BHc.exp()[..., None].to(q_BHk.dtype)
    if beta_BH is not None:
        v_BHw = beta_BH[..., None].to(q_BHk.dtype) * (v_BHw - (k_BHk[:, :, None] @ after)[:, :, 0])
    after = after + k_BHk[..., None] * v_BHw[:, :, None]
    return (q_BHk[:, :, None] @ after)[:, :, 0], after.to(memory_BHkw.dtype)


@dataclass(frozen=True)
class Around:
    """What a layer does to q and k before the token enters, and to o after it.

    Attributes:
        unit: q and k are divided by `sqrt(‖·‖² + unit)`; 0 leaves them as they are.
        scale: of q.
        turn: cosines and sines `[k/2]` of the angles by which pairs of channels of q and k turn; None for no rotation.
        gate_BE: logits of the gate, with any distance between sequences; None for no gate.
        gain: of the norm, `[w]` or, by head, `[E]`; None for none.
        normaliser: whether S has one value channel more, for ones: o is divided by max(|that channel|, 1). Not with β.
        norm: "layer", "rms" or "" for none, over the channels of a head.
        gated: by "silu" or "sigmoid", or "" for no gate.
        eps: of the norm.
    """

    unit: float = 0.0
    scale: float = 1.0
    turn: tuple[Tensor, Tensor] | None = None
    gate_BE: Tensor | None = None
    gain: Tensor | None = None
    normaliser: bool = False
    norm: Literal["", "layer", "rms"] = ""
    gated: Literal["", "silu", "sigmoid"] = ""
    eps: float = 0.0

    def tensors(self) -> list[Tensor | None]:
        """As the compiled function takes them."""
        return [*(self.turn or (None, None)), self.gain, self.gate_BE]

    def agrees(self, B: int, H: int, k: int, w: int) -> bool:
        """Whether its tensors are those of such a layer; w as in o, without the normaliser."""
        if self.turn is not None and any(x.shape != (k // 2,) or k % 2 or not x.is_contiguous() for x in self.turn):
            return False
        gate = self.gate_BE.shape == (B, H * w) and self.gate_BE.stride(-1) == 1 if self.gate_BE is not None else True
        return gate and (self.gate_BE is not None) == bool(self.gated) and self._gain_agrees(H, w)

    def _gain_agrees(self, H: int, w: int) -> bool:
        return self.gain is None or (self.gain.shape in ((w,), (H * w,)) and self.gain.is_contiguous())

    def sizes(self, w: int) -> list[int]:
        """As the compiled function takes them."""
        by_head = 0 if self.gain is None or self.gain.numel() == w else w
        gate = (0, 0) if self.gate_BE is None else (self.gate_BE.stride(0), w)
        kinds = int(self.normaliser), ("", "layer", "rms").index(self.norm), ("", "silu", "sigmoid").index(self.gated)
        return [by_head, *gate, *kinds]


PLAIN = Around()


def compiled_memory_step(
    memory_BHkw: Tensor,
    q_BHk: Tensor,
    k_BHk: Tensor,
    v_BHw: Tensor,
    log_decay_BHc: Tensor | None,
    beta_BH: Tensor | None,
    around: Around = PLAIN,
) -> Tensor | None:
    """One token, compiled, with what is done around it; S is written in place.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`.
        q_BHk: `[B, H, k]`, as the other inputs in any layout.
        k_BHk: `[B, H, k]`.
        v_BHw: `[B, H, w]`, of w − 1 channels with a normaliser.
        log_decay_BHc: `[B, H, 1]` or `[B, H, k]`; None for no decay.
        beta_BH: β of the delta rule `[B, H]`; None where the values enter as they are.
        around: what is done to q, k and o.

    Returns:
        o `[B, H, w]`, of w − 1 channels with a normaliser; None where the compiled library does not take the call, and
        nothing has changed.
    """
    inputs = (q_BHk, k_BHk, v_BHw, log_decay_BHc)
    if not steps_with((memory_BHkw,), *inputs, beta_BH, *around.tensors()):
        return None
    B, H, k, w = memory_BHkw.shape
    wide, decays = w - around.normaliser, 0 if log_decay_BHc is None else log_decay_BHc.shape[-1]
    shapes = ((B, H, k), (B, H, k), (B, H, wide), (B, H, decays))
    agree = all(x is None or x.shape == shape for x, shape in zip(inputs, shapes, strict=True)) and decays in (0, 1, k)
    if (
        not agree
        or not around.agrees(B, H, k, wide)
        or (beta_BH is not None and (around.normaliser or beta_BH.shape != (B, H)))
    ):
        return None
    rows = [x if x is None or x.stride(-1) == 1 else x.contiguous() for x in inputs]
    beta_BH = None if beta_BH is None else beta_BH.contiguous()
    o_BHw = torch.empty((B, H, wide), dtype=memory_BHkw.dtype)
    strides = [stride for x in rows for stride in ((0, 0) if x is None else x.stride()[:2])]
    sizes = [B, H, k, w, decays, *strides, *around.sizes(wide)]
    tensors = [*rows, beta_BH, *around.tensors(), o_BHw]
    run("memory_step", [memory_BHkw], tensors, [around.unit, around.scale, around.eps], sizes)
    return o_BHw
