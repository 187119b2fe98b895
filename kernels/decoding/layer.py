"""One token of a linear prior from the layer's projections to the input of its output projection: one compiled
operation for all heads, and for FEM's free energy and gates too. `kernels.linear.exact` defines the same step.

The compiled step keeps means of e^u, coded, where the step in the log domain keeps their logarithms f:

    x = e^f − 1,      or −2^64 e^f where e^f < 1/2           |f| ≤ 30

A mean of them is a sum of products. The state is in one of the two forms, by the name of its tensor; a token whose
exponents are out of range turns it back into f.

Shape letters: B sequences, H heads, C projected channels, E values of all heads, R rank, k and d channels per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.decoding.running import run, steps_with
from kernels.gates import EPS
from kernels.numerics.exponentials import RANGE

CODE = 2.0**64
AXES = "BHkd"  # of the state of a linear prior

State = dict[str, Tensor]


@dataclass(frozen=True)
class Decays:
    """The decays of one token.

    Attributes:
        given: log-decays ≤ 0, or their logits, `[B, H·c]` with c = 1 or k; log-decays `[H]` are the same for all.
        bias: of the logits, `[H·c]`; None with log-decays.
        slowness: of `log sigmoid(logits + bias) / slowness`; 0 for log-decays.
    """

    given: Tensor
    bias: Tensor | None = None
    slowness: float = 0.0


@dataclass(frozen=True)
class Gates:
    """What FEM adds to a linear prior.

    Attributes:
        s_BR: low-rank factors of the projections; None for plain ones.
        p_RC: their map to channels; None with s.
        beta_Hd: inverse temperatures.
    """

    s_BR: Tensor | None
    p_RC: Tensor | None
    beta_Hd: Tensor

    def agrees(self, B: int, C: int, H: int, d: int) -> bool:
        """Whether its shapes are those of a layer of C projected channels, and of H heads of d channels."""
        agree = self.beta_Hd.shape == (H, d) and (self.s_BR is None) == (self.p_RC is None)
        if self.s_BR is not None and self.p_RC is not None:
            agree = agree and self.s_BR.shape == (B, len(self.p_RC)) and self.p_RC.shape[1] == C
        return agree


def layer_step(state: State, z_BC: Tensor, decays: Decays | None, gates: Gates | None) -> Tensor | None:
    """One token.

    Args:
        state: of `kernels.linear.exact.empty_state`, or of the previous call; written in place.
        z_BC: projections: queries, keys, values and, with gates, the logits of λ and the outer gate.
        decays: None where nothing decays.
        gates: None for the mean alone.

    Returns:
        The read `[B, E]`, gated with gates; None where the compiled library does not take the call. The state is then
        as before, in the log domain where a token is out of range.
    """
    n_BHk, m_BHkd = state["n_BHk"], state["m_BHkd"]
    given = None if decays is None else decays.given
    bias = None if decays is None else decays.bias
    s_BR, p_RC, beta_Hd = (None, None, None) if gates is None else (gates.s_BR, gates.p_RC, gates.beta_Hd)
    coded = [x for x in (state.get("x_BHkd"), state.get("f_BHkd")) if x is not None]
    if not steps_with((n_BHk, m_BHkd, *coded), z_BC, given, bias, s_BR, p_RC, beta_Hd):
        return None
    if not _agree(n_BHk, m_BHkd, z_BC, decays, gates) or (gates is not None and not code(state)):
        return None
    (B, H, k, d), C, R = m_BHkd.shape, z_BC.shape[1], 0 if s_BR is None else s_BR.shape[1]
    count = 0 if given is None else given.shape[-1] // H
    pitch = 0 if given is None or given.dim() == 1 else H * count
    y_BE = torch.empty((B, H * d), dtype=z_BC.dtype)
    inputs = [None if x is None else x.contiguous() for x in (z_BC, s_BR, p_RC, given, bias, beta_Hd)]
    written = [n_BHk, m_BHkd, *([] if gates is None else [state["x_BHkd"]])]
    numbers = [0.0 if decays is None else decays.slowness, EPS, RANGE]
    padding = [None] if gates is None else []
    if run("feature_step", written, [*padding, *inputs, y_BE], numbers, [B, H, k, d, C, R, count, pitch]):
        to_logarithms(state)
        return None
    return y_BE


def _agree(n: Tensor, m: Tensor, z: Tensor, decays: Decays | None, gates: Gates | None) -> bool:
    """Whether shapes are those of one layer: the compiled step does not check them."""
    B, H, k, d = m.shape
    C = H * (2 * k + (1 if gates is None else 3) * d)
    agree = n.shape == (B, H, k) and z.shape == (B, C)
    if decays is not None:
        counts = (H, H * k)
        agree = agree and decays.given.shape[-1] in counts and decays.given.shape[:-1] in ((), (B,))
        agree = agree and (decays.bias is None or decays.bias.shape == decays.given.shape[-1:])
        agree = agree and (decays.bias is not None) == (decays.slowness > 0)
    return agree and (gates is None or gates.agrees(B, C, H, d))


def code(state: State, axes: str = AXES) -> bool:
    """Turns f into x where all of it is in range.

    Args:
        state: changed in place.
        axes: the dimensions in the names of its tensors.

    Returns:
        Whether the state has x now.
    """
    f = state.get(f"f_{axes}")
    if f is not None and bool((f.abs() <= RANGE).all()):
        state[f"x_{axes}"] = torch.where(f < -math.log(2), -CODE * f.exp(), f.expm1())
        del state[f"f_{axes}"]
    return f"x_{axes}" in state


def to_logarithms(state: State, axes: str = AXES) -> None:
    """Turns x into f, for the step in the log domain; a state that has f, or neither, stays as it is.

    Args:
        state: changed in place.
        axes: the dimensions in the names of its tensors.
    """
    x = state.pop(f"x_{axes}", None)
    if x is not None:
        state[f"f_{axes}"] = torch.where(x < -1.0, (x / -CODE).log(), x.log1p())
