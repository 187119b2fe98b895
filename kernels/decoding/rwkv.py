"""One token of RWKV-7's time mixing (arXiv 2503.14456) between the layer's projections and its output projection.

    S ← diag(w) S − (κ ⊙ a) (Sᵀ κ)ᵀ + k vᵀ,      y = (norm(Sᵀ r) + (Σ r ⊙ k ⊙ r_k) v) ⊙ g

Shape letters: B sequences, H heads of k key channels and w value channels, K = H·k, V = H·w.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.decoding.running import run, steps_with


@dataclass(frozen=True)
class Projections:
    """What a token gives all heads: r, k and v, the logits of w and a without their start values, and the gate g.

    Attributes:
        r: `[B, K]`.
        k: `[B, K]`.
        v: `[B, V]`.
        w: `[B, K]`.
        a: `[B, K]`.
        g: `[B, V]`.
    """

    r: Tensor
    k: Tensor
    v: Tensor
    w: Tensor
    a: Tensor
    g: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """In this order."""
        return self.r, self.k, self.v, self.w, self.a, self.g


@dataclass(frozen=True)
class Parameters:
    """The parameters of a layer between its projections.

    Attributes:
        largest_decay: w = e^(−largest_decay · σ(logit)).
        unit_eps: least norm of κ.
        norm_eps: of the norm of a head.
        w_start: start values of the logits of w, `[K]`.
        a_start: of those of a, `[K]`.
        k_k: κ = k ⊙ k_k, normalised per head, `[K]`.
        k_a: k ← k ⊙ (1 + (a − 1) ⊙ k_a), `[K]`.
        r_k: of each token's own value, `[K]`.
        gain: of the norm, `[V]`.
        bias: of the norm, `[V]`.
    """

    largest_decay: float
    unit_eps: float
    norm_eps: float
    w_start: Tensor
    a_start: Tensor
    k_k: Tensor
    k_a: Tensor
    r_k: Tensor
    gain: Tensor
    bias: Tensor

    def tensors(self) -> list[Tensor]:
        """As the compiled function takes them."""
        given = (self.w_start, self.a_start, self.k_k, self.k_a, self.r_k, self.gain, self.bias)
        return [x.contiguous() for x in given]


def compiled_rwkv_step(memory_BHkw: Tensor, given: Projections, layer: Parameters) -> Tensor | None:
    """One token, compiled; S is written in place.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`.
        given: the token's projections.
        layer: its parameters.

    Returns:
        y `[B, V]`; None where the compiled library does not take the call, and nothing has changed.
    """
    inputs, parameters = given.tensors(), layer.tensors()
    if not steps_with((memory_BHkw,), *inputs, *parameters):
        return None
    B, H, k, w = memory_BHkw.shape
    keys, values = H * k, H * w
    shapes = [x.shape for x in (*inputs, *parameters)]
    tokens = [(B, width) for width in (keys, keys, values, keys, keys, values)]
    if shapes != [*tokens, *[(keys,)] * 5, *[(values,)] * 2]:
        return None
    y_BV = torch.empty((B, values), dtype=memory_BHkw.dtype)
    tensors = [*(x.contiguous() for x in inputs), *parameters, y_BV]
    numbers = [layer.largest_decay, layer.unit_eps, layer.norm_eps]
    run("rwkv_step", [memory_BHkw], tensors, numbers, [B, H, k, w])
    return y_BV
