"""One token of the priors with weights per channel, from the layer's projections to the input of its output projection:
one compiled operation, for FEM's free energy and gates too. `kernels.selective.exact` and
`kernels.channelwise.channelwise_step` define the same steps.

Shape letters: B sequences, D input channels, C projected channels, H heads of d channels, E = H·d, N states, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.decoding.layer import Gates, State, code, to_logarithms
from kernels.decoding.running import run, steps_with
from kernels.gates import EPS
from kernels.numerics.exponentials import RANGE

AXES = "BNE"  # of the selective scan's state


@dataclass(frozen=True)
class Selection:
    """The parameters of a selective state space (arXiv 2312.00752) that `kernels.selective` takes the results of.

    Attributes:
        w_down: with `w_up` and `bias` to the step sizes, Δ = softplus(W_up W_down x + bias), `[r, D]`.
        w_up: `[E, r]`.
        bias: `[E]`.
        w_states: to B and C = softplus(W x), `[2N, D]`.
        a_log: rates A = −exp(a_log), `[N, E]`.
        w_skip: δ = softplus(w_skip), `[E]`.
    """

    w_down: Tensor
    w_up: Tensor
    bias: Tensor
    w_states: Tensor
    a_log: Tensor
    w_skip: Tensor

    def tensors(self) -> list[Tensor]:
        """As the compiled function takes them."""
        given = (self.w_down, self.w_up, self.bias, self.w_states, self.a_log, self.w_skip)
        return [x.contiguous() for x in given]

    def agrees(self, D: int, E: int, N: int) -> bool:
        """Whether its shapes are those of such a layer."""
        r = len(self.w_down)
        shapes = [x.shape for x in (self.w_down, self.w_up, self.bias, self.w_states, self.a_log, self.w_skip)]
        return shapes == [(r, D), (E, r), (E,), (2 * N, D), (N, E), (E,)]


def selective_layer_step(
    state: State, x_BD: Tensor, z_BC: Tensor, heads: int, selection: Selection, gates: Gates | None
) -> Tensor | None:
    """One token of a selective state space.

    Args:
        state: of `kernels.selective.exact.empty_state`, or of the previous call; written in place.
        x_BD: the layer's input `[B, D]`.
        z_BC: projections: values and, with gates, the logits of λ and the outer gate.
        heads: H.
        selection: the parameters.
        gates: None for the mean alone.

    Returns:
        The read `[B, E]`, gated with gates; None where the compiled library does not take the call. The state is then
        as before, in the log domain where a token is out of range.
    """
    n, m = state["n_BNE"], state["m_BNE"]
    coded = [x for x in (state.get(f"x_{AXES}"), state.get(f"f_{AXES}")) if x is not None]
    parameters, extra = selection.tensors(), _extra(gates)
    if not steps_with((n, m, *coded), x_BD, z_BC, *parameters, *extra):
        return None
    (B, N, E), D = n.shape, x_BD.shape[-1]
    agree = m.shape == n.shape and x_BD.shape == (B, D) and selection.agrees(D, E, N)
    if not agree or not _agrees(z_BC, B, heads, E, 1, gates) or (gates is not None and not code(state, AXES)):
        return None
    y_BE = torch.empty((B, E), dtype=z_BC.dtype)
    written = [n, m, *([] if gates is None else [state[f"x_{AXES}"]])]
    s_BR, p_RC, beta_Hd = extra
    tensors = [*([None] if gates is None else []), x_BD.contiguous(), z_BC.contiguous(), s_BR, p_RC, *parameters]
    sizes = [B, D, heads, E // heads, z_BC.shape[1], 0 if s_BR is None else s_BR.shape[1], N, len(selection.w_down)]
    if run("selective_layer_step", written, [*tensors, beta_Hd, y_BE], [EPS, RANGE], sizes):
        to_logarithms(state, AXES)
        return None
    return y_BE


def channel_layer_step(state: State, z_BC: Tensor, heads: int, gates: Gates | None) -> Tensor | None:
    """One token of AFT (arXiv 2105.14103).

    Args:
        state: `n_BE`, `m_BE` and, with gates, `f_BE`, as `kernels.channelwise.channelwise_step` takes them; written in
            place.
        z_BC: projections: queries, keys, values and, with gates, the logits of λ and the outer gate.
        heads: H.
        gates: None for the mean alone.

    Returns:
        The read times RMS(softplus(q)) per head `[B, E]`, gated with gates; None where the compiled library does not
        take the call, and nothing has changed.
    """
    written, extra = [state[name] for name in ("n_BE", "m_BE", *([] if gates is None else ["f_BE"]))], _extra(gates)
    if not steps_with(written, z_BC, *extra):
        return None
    B, E = written[0].shape
    if any(x.shape != (B, E) for x in written) or not _agrees(z_BC, B, heads, E, 3, gates):
        return None
    y_BE = torch.empty((B, E), dtype=z_BC.dtype)
    s_BR, p_RC, beta_Hd = extra
    tensors = [*([None] if gates is None else []), z_BC.contiguous(), s_BR, p_RC, beta_Hd, y_BE]
    sizes = [B, heads, E // heads, z_BC.shape[1], 0 if s_BR is None else s_BR.shape[1]]
    run("channel_layer_step", written, tensors, [EPS], sizes)
    return y_BE


def _extra(gates: Gates | None) -> list[Tensor | None]:
    """What gates have, or as many Nones."""
    given = (None, None, None) if gates is None else (gates.s_BR, gates.p_RC, gates.beta_Hd)
    return [None if x is None else x.contiguous() for x in given]


def _agrees(z_BC: Tensor, B: int, H: int, E: int, projections: int, gates: Gates | None) -> bool:
    """Whether the projections and the gates are those of a layer with so many projections before the gates."""
    C = E * (projections + (0 if gates is None else 2))
    return z_BC.shape == (B, C) and E % H == 0 and (gates is None or gates.agrees(B, C, H, E // H))
