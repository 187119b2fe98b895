"""Reads whose weights differ by channel and come from keys alone, as in AFT (arXiv 2105.14103): `p_t(i)_j ∝ exp(k_ij)`.

Causal, in time and memory linear in T.

With the running maximum `top_t = max_{i≤t} k_i` of the past only, every exponent is ≤ 0 and every decay is in [0, 1]:

    n_t = e^{top_{t−1} − top_t} n_{t−1} + e^{k_t − top_t}          (sum of weights; log n_t + top_t = logcumsumexp(k)_t)
    N_t = the same with e^{k_t − top_t} v_t                          E_p[v] = N_t / n_t

`log E_p[exp(u)] = logcumsumexp(k + u) − logcumsumexp(k)`, exact for any finite u.

Shape letters: B sequences, T tokens, c inputs that share their weights, E channels. All tensors are fp32 or fp64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu import scans as cpu
from kernels.cpu.call import takes
from kernels.numerics.exponentials import NARROW, first_row, in_range, one_pass, out_of_range, replaced
from kernels.numerics.log_mean_exp import log_mix
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision
from kernels.scan import diagonal_scan


def running_max(x_BTE: Tensor) -> Tensor:
    """Running maximum `max_{i≤t} x_i`, by the even/odd recursion of the diagonal scan. No gradient.

    Args:
        x_BTE: `[B, T, E]`, T ≥ 1.

    Returns:
        `[B, T, E]`.
    """
    with torch.no_grad():
        return _running_max(x_BTE.transpose(0, 1).contiguous()).transpose(0, 1)


def _running_max(x: Tensor) -> Tensor:
    T = x.shape[0]
    if T == 1:
        return x.clone()
    out = torch.empty_like(x)
    out[1::2] = _running_max(torch.maximum(x[0 : T // 2 * 2 : 2], x[1::2]))
    out[0] = x[0]
    torch.maximum(x[2::2], out[1 : T - 1 : 2], out=out[2::2])
    return out


def channelwise_read(k_BTE: Tensor, v_BTcE: Tensor) -> Tensor:
    """Mean E_p[v] of several inputs under the same weights.

    Args:
        k_BTE: keys `[B, T, E]`, any finite size.
        v_BTcE: values `[B, T, c, E]`, of the keys' dtype.

    Returns:
        `[B, T, c, E]`.
    """
    return _read_opaquely([k_BTE, v_BTcE], [])[0]


@full_precision
def _read(k_BTE: Tensor, v_BTcE: Tensor) -> Tensor:
    if takes("BTE BTcE", k_BTE, v_BTcE):
        out: Tensor = cpu.ChannelwiseRead.apply(k_BTE, v_BTcE)
        return out
    return _by_pytorch(k_BTE, v_BTcE)


def _by_pytorch(k_BTE: Tensor, v_BTcE: Tensor) -> Tensor:
    top, decay = _decays(k_BTE)
    weight = (k_BTE - top).exp()
    ones = torch.ones_like(v_BTcE[:, :, :1])
    added = torch.cat((v_BTcE, ones), dim=2) * weight[:, :, None]
    copies = added.shape[2]
    sums = diagonal_scan(decay[:, :, None].expand(-1, -1, copies, -1).flatten(2), added.flatten(2)).unflatten(
        2, (copies, -1)
    )
    return sums[:, :, :-1] / sums[:, :, -1:]


def log_cumulative(k_BTE: Tensor) -> Tensor:
    """`log Σ_{i≤t} exp(k_i)`.

    Args:
        k_BTE: `[B, T, E]`, any finite size.

    Returns:
        `[B, T, E]`.
    """
    top, decay = _decays(k_BTE)
    return diagonal_scan(decay, (k_BTE - top).exp()).log() + top


def _decays(k_BTE: Tensor) -> tuple[Tensor, Tensor]:
    """The running maximum, a constant for autograd since results don't depend on it, and `e^{top_{t−1} − top_t}`."""
    top = running_max(k_BTE)
    decay = torch.cat((torch.zeros_like(top[:, :1]), (top[:, :-1] - top[:, 1:]).exp()), dim=1)
    return top, decay


@full_precision
def channelwise_log_read(k_BTE: Tensor, u_BTE: Tensor) -> Tensor:
    """`log E_p[exp(u)]`, computed in fp64 since two large sums are subtracted.

    Args:
        k_BTE: keys `[B, T, E]`.
        u_BTE: `[B, T, E]`, any finite size.

    Returns:
        `[B, T, E]` in the dtype of u.
    """
    k, u = k_BTE.double(), u_BTE.double()
    return (log_cumulative(k + u) - log_cumulative(k)).to(u_BTE.dtype)


def channelwise_free_energy(k_BTE: Tensor, v_BTE: Tensor, beta_E: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and free energy (arXiv 2602.07160) under channelwise weights.

    One pass over `[v, w]`; the exact log-domain read replaces F in rows and channels that see a value out of range.

    Args:
        k_BTE: keys `[B, T, E]`.
        v_BTE: values `[B, T, E]`, of the keys' dtype, any finite size.
        beta_E: inverse temperatures β > 0 `[E]`.

    Returns:
        `E_p[v]` and `F = (1/β) log E_p[exp(βv)]`, `[B, T, E]` each.
    """
    mu, F = _free_energy_opaquely([k_BTE, v_BTE, beta_E], [])
    return mu, F


def _free_energy(k_BTE: Tensor, v_BTE: Tensor, beta_E: Tensor) -> tuple[Tensor, Tensor]:
    ordinary = in_range(v_BTE, beta_E)
    mu, F = one_pass(
        lambda x: channelwise_read(k_BTE, x.unflatten(-1, (2, -1))).flatten(2),
        v_BTE,
        beta_E,
        clamped=None if ordinary else NARROW,
    )
    if ordinary:
        return mu, F
    exact = channelwise_log_read(k_BTE, v_BTE * beta_E) / beta_E
    return mu, replaced(F, exact, first_row(out_of_range(v_BTE, beta_E), causal=True))


_read_opaquely = opaque(
    "channelwise_read",
    lambda ts, _: [_read(*ts)],
    lambda ts: [torch.empty(ts[1].shape, dtype=ts[1].dtype, device=ts[1].device)],
)
_free_energy_opaquely = opaque(
    "channelwise_free_energy",
    lambda ts, _: _free_energy(*ts),
    lambda ts: [torch.empty(ts[1].shape, dtype=ts[1].dtype, device=ts[1].device) for _ in range(2)],
)


def channelwise_step(state: dict[str, Tensor], k_BE: Tensor, v_BE: Tensor, u_BE: Tensor | None) -> None:
    """Adds one token to a decoding state, in place.

    Args:
        state: `n_BE` (log of the summed weights), `m_BE` (mean of v) and, with u, `f_BE` (log of the mean of exp(u)),
            `[B, E]` each. Before the first token n is a large negative number, m and f are zero.
        k_BE: the token's keys `[B, E]`.
        v_BE: its values `[B, E]`.
        u_BE: its exponents `[B, E]`; None if the mean alone is wanted.
    """
    n = torch.logaddexp(state["n_BE"], k_BE)
    log_keep, log_add = state["n_BE"] - n, k_BE - n
    state["m_BE"] = torch.lerp(state["m_BE"], v_BE, log_add.exp())
    if u_BE is not None:
        state["f_BE"] = log_mix(state["f_BE"], u_BE, log_keep, log_add)
    state["n_BE"] = n
