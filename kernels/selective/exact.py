"""The normalised selective scan in the log domain, token by token: any finite values, and decoding.

Per channel e the rows weigh the past by `Σ_n C_tn exp(Σ_{i<s≤t} Δ_s A_n) Δ_i B_in` and the own token by a skip δ
besides. The state of a component n is a mean over the past under its own weights, as in `linear_exact.py`: n (log of
the summed weights), m (mean of v), f (log of the mean of exp(u)), `[B, N, E]` each. Contract: logarithms of Δ `[B, T,
E]`, B and C `[B, T, N]`, δ `[E]`; A `[N, E]`; v, u `[B, T, E]`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.linear.exact import NOTHING
from kernels.numerics.log_mean_exp import log_mean_exp, log_mix
from kernels.numerics.precision import full_precision

CHUNK = 16

State = dict[str, Tensor]


def empty_state(batch: int, states: int, channels: int, like: Tensor, free_energy: bool) -> State:
    shape = (batch, states, channels)
    state = {"n_BNE": like.new_full(shape, NOTHING), "m_BNE": like.new_zeros(shape)}
    return state | {"f_BNE": like.new_zeros(shape)} if free_energy else state


@full_precision
def exact_read(
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BTE: Tensor,
    u_BTE: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """(E_p[v], log E_p[exp(u)])."""
    B, T, E = v_BTE.shape
    state = empty_state(B, a_NE.shape[0], E, v_BTE, u_BTE is not None)
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for part in (slice(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK)):
        inputs = [None if x is None else x[:, part] for x in (log_delta, log_b, log_c, v_BTE, u_BTE)]
        mu, log_mean, state = checkpoint(_chunk, state, a_NE, log_skip_E, *inputs, use_reentrant=False)
        mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    return torch.cat(mus, dim=1), None if u_BTE is None else torch.cat(logs, dim=1)


def _chunk(
    state: State,
    a_NE: Tensor,
    log_skip_E: Tensor,
    log_delta: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    v: Tensor,
    u: Tensor | None,
) -> tuple[Tensor, Tensor | None, State]:
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for t in range(v.shape[1]):
        u_BE = None if u is None else u[:, t]
        mu, log_mean, state = exact_step(
            state, log_delta[:, t], a_NE, log_b[:, t], log_c[:, t], log_skip_E, v[:, t], u_BE
        )
        mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    return torch.stack(mus, dim=1), torch.stack(logs, dim=1) if logs else None, state


@full_precision
def exact_step(
    state: State,
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BE: Tensor,
    u_BE: Tensor | None,
) -> tuple[Tensor, Tensor | None, State]:
    """One token: its row, and the state after it. `log_delta` `[B, E]`, `log_b` and `log_c` `[B, N]`."""
    old = state["n_BNE"] + log_delta.exp()[:, None] * a_NE
    new = log_delta[:, None] + log_b[..., None]
    n = torch.logaddexp(old, new)
    log_keep, log_add = old - n, new - n
    after = {"n_BNE": n, "m_BNE": torch.lerp(state["m_BNE"], v_BE[:, None].expand_as(n), log_add.exp())}
    weights = torch.cat((log_c[..., None] + n, log_skip_E.expand_as(v_BE)[:, None]), dim=1).log_softmax(1)
    mu = (weights.exp() * torch.cat((after["m_BNE"], v_BE[:, None]), dim=1)).sum(1)
    if u_BE is None:
        return mu, None, after
    after["f_BNE"] = log_mix(state["f_BNE"], u_BE[:, None].expand_as(n), log_keep, log_add)
    seen = torch.cat((after["f_BNE"], u_BE[:, None]), dim=1)
    return mu, log_mean_exp(weights.transpose(1, 2)[..., None, :], seen.transpose(1, 2)[..., None])[..., 0, 0], after
