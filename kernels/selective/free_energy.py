"""Mean and free energy (arXiv 2602.07160) under a selective state space (2312.00752) that is divided by its sum:

    p_t(i)_j ∝ Σ_n C_tn exp(Σ_{i<s≤t} Δ_sj A_nj) Δ_ij B_in + δ_j [i = t]

One pass of the scan over `[v, w, 1]`. Rows and channels that see a value out of range (`kernels.numerics.exponentials`)
are computed apart: fp32 values in one pass in fp64, what is out of its range too in the log domain.

Shape letters: B sequences, T tokens, c inputs with the same dynamics, N states, E channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.implementations import triton_wanted
from kernels.numerics.exponentials import NARROW, WIDE, first_row, in_range, one_pass, out_of_range, replaced
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision
from kernels.selective.exact import exact_read
from kernels.selective.sums import selective_sums

#: log Δ `[B, T, E]`, A ≤ 0 `[N, E]`, log B and log C `[B, T, N]`, log δ `[E]`; fp32 or fp64.
Dynamics = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@full_precision
def selective_read(dynamics: Dynamics, v_BTcE: Tensor) -> Tensor:
    """Mean E_p[v] of c inputs under the same weights.

    Args:
        dynamics: the prior, see `Dynamics`.
        v_BTcE: values `[B, T, c, E]`.

    Returns:
        `[B, T, c, E]`.
    """
    log_delta, a_NE, log_b, log_c, log_skip = dynamics
    values = torch.cat((v_BTcE, torch.ones_like(v_BTcE[:, :, :1])), dim=2)
    sums = selective_sums(log_delta.exp(), a_NE, log_b.exp(), log_c.exp(), values) + log_skip.exp() * values
    return sums[:, :, :-1] / sums[:, :, -1:]


def selective_free_energy(dynamics: Dynamics, v_BTE: Tensor, beta_E: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and free energy of the values.

    Args:
        dynamics: the prior, see `Dynamics`.
        v_BTE: values `[B, T, E]`, any finite size.
        beta_E: inverse temperatures β > 0 `[E]`.

    Returns:
        `E_p[v]` and `F = (1/β) log E_p[exp(βv)]`, `[B, T, E]` each.
    """
    mu, F = _free_energy_opaquely([*dynamics, v_BTE, beta_E], [])
    return mu, F


def _free_energy(dynamics: Dynamics, v_BTE: Tensor, beta_E: Tensor) -> tuple[Tensor, Tensor]:
    if in_range(v_BTE, beta_E):
        return one_pass(_mean_under(dynamics), v_BTE, beta_E)
    mu, F = one_pass(_mean_under(dynamics), v_BTE, beta_E, clamped=NARROW)
    first_BE = first_row(out_of_range(v_BTE, beta_E), causal=True)
    seen_BE = first_BE < v_BTE.shape[1]
    b, e = (seen_BE.any(dim).nonzero()[:, 0] for dim in (1, 0))
    log_delta, a_NE, log_b, log_c, log_skip = dynamics
    some = (log_delta[b][..., e], a_NE[:, e], log_b[b], log_c[b], log_skip[e])
    F_some = _out_of_range(some, v_BTE[b][..., e], beta_E[e])
    F_BET = F_some.new_zeros(F.mT.shape).index_put((b[:, None], e[None]), F_some.mT)
    return mu, replaced(F, F_BET.mT, first_BE)


def _out_of_range(dynamics: Dynamics, v_BTE: Tensor, beta_E: Tensor) -> Tensor:
    """F of values that are out of the range of a pass in their dtype."""
    if v_BTE.dtype != torch.float32 or triton_wanted("selective_exact", v_BTE):  # there the log domain is one kernel
        return _log_domain(dynamics, v_BTE, beta_E)
    bad_BTE = out_of_range(v_BTE, beta_E, WIDE)
    log_delta, a_NE, log_b, log_c, log_skip = (x.double() for x in dynamics)
    read = _mean_under((log_delta, a_NE, log_b, log_c, log_skip))
    if not bad_BTE.any():
        return one_pass(read, v_BTE.double(), beta_E.double())[1].to(v_BTE.dtype)
    F = one_pass(read, v_BTE.double(), beta_E.double(), clamped=WIDE)[1].to(v_BTE.dtype)
    return replaced(F, _log_domain(dynamics, v_BTE, beta_E), first_row(bad_BTE, causal=True))


def _log_domain(dynamics: Dynamics, v_BTE: Tensor, beta_E: Tensor) -> Tensor:
    _, log_mean = exact_read(*dynamics, v_BTE, v_BTE * beta_E)
    assert log_mean is not None
    return log_mean / beta_E


def _mean_under(dynamics: Dynamics) -> Callable[[Tensor], Tensor]:
    """The mean of values `[B, T, 2E]`: two inputs with the same weights."""
    return lambda x: selective_read(dynamics, x.unflatten(-1, (2, -1))).flatten(2)


_free_energy_opaquely = opaque(
    "selective_free_energy",
    lambda ts, _: _free_energy((ts[0], ts[1], ts[2], ts[3], ts[4]), ts[5], ts[6]),
    lambda ts: [torch.empty(ts[5].shape, dtype=ts[5].dtype, device=ts[5].device) for _ in range(2)],
)
