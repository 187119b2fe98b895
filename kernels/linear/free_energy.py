"""Mean and free energy (arXiv 2602.07160) under a linear prior: `p_t(i) ∝ Σ_c φ(q_t)_c φ(k_i)_c e^{G_tc − G_ic}`.

One pass of the chunked sums over `[v, w, 1]`, where features and values have an ordinary range (`log φ(k) ≥ −15`, |βv|
as in `kernels.numerics.exponentials`). The heads whose rows see anything else are computed apart: those of fp32 in one
pass in fp64, what is out of its range too in the log domain.

Shape letters: B sequences, T tokens, H heads, k and d channels per head of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold

from kernels.implementations import triton_wanted
from kernels.linear.exact import exact_read
from kernels.linear.sums import decayed_sums
from kernels.linear.weights import LinearWeights, only
from kernels.numerics.exponentials import NARROW, WIDE, Reach, first_row, in_range, one_pass, out_of_range, replaced
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision


def linear_read(weights: LinearWeights, v_BTHw: Tensor, causal: bool) -> Tensor:
    """Mean E_p[v] under linear attention.

    Args:
        weights: the prior.
        v_BTHw: values `[B, T, H, w]`, fp32 or fp64.
        causal: whether row t sees keys i ≤ t only; otherwise there are no decays.

    Returns:
        `[B, T, H, w]`.
    """
    return _read_opaquely([*weights.tensors(), v_BTHw], [*weights.present(), int(causal)])[0]


def linear_free_energy(weights: LinearWeights, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Mean and free energy under linear attention.

    Args:
        weights: the prior.
        v_BTHd: values `[B, T, H, d]`, fp32 or fp64, any finite size.
        beta_Hd: inverse temperatures β > 0 `[H, d]`.
        causal: whether row t sees keys i ≤ t only; otherwise there are no decays.

    Returns:
        `E_p[v]` and `F = (1/β) log E_p[exp(βv)]`, `[B, T, H, d]` each.
    """
    mu, F = _free_energy_opaquely([*weights.tensors(), v_BTHd, beta_Hd], [*weights.present(), int(causal)])
    return mu, F


@full_precision
def _linear_read(weights: LinearWeights, v_BTHw: Tensor, causal: bool) -> Tensor:
    v_BTHw = _masked(weights, v_BTHw)
    fast = _mean(weights, v_BTHw, causal)
    if weights.ordinary():
        return fast
    first_BH = first_row(weights.faint(), causal)
    b, h = (first_BH < v_BTHw.shape[1]).nonzero(as_tuple=True)
    mu, _ = _out_of_range(weights.only(b, h), only(v_BTHw, b, h), None, causal)
    return replaced(fast, _at(b, h, mu, fast), first_BH)


@full_precision
def _linear_free_energy(weights: LinearWeights, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    v_BTHd = _masked(weights, v_BTHd)
    if weights.ordinary() and in_range(v_BTHd, beta_Hd):
        return one_pass(lambda x: _mean(weights, x, causal), v_BTHd, beta_Hd)
    mu, F = one_pass(lambda x: _mean(weights, x, causal), v_BTHd, beta_Hd, clamped=NARROW)
    first_BH = first_row(weights.faint() | out_of_range(v_BTHd, beta_Hd).any(-1), causal)
    b, h = (first_BH < v_BTHd.shape[1]).nonzero(as_tuple=True)
    beta_N11d = beta_Hd[h, None, None]
    mu_some, F_some = _out_of_range(weights.only(b, h), only(v_BTHd, b, h), beta_N11d, causal)
    assert F_some is not None
    return replaced(mu, _at(b, h, mu_some, mu), first_BH), replaced(F, _at(b, h, F_some, F), first_BH)


def _out_of_range(weights: LinearWeights, v: Tensor, beta: Tensor | None, causal: bool) -> tuple[Tensor, Tensor | None]:
    """Mean and F (None without β) of N sequences of one head that are out of the range of a pass in their dtype."""
    if v.dtype != torch.float32 or triton_wanted("linear_exact", v):  # there the log domain is one kernel
        return _log_domain(weights, v, beta, causal)
    bad = weights.faint(WIDE) if beta is None else weights.faint(WIDE) | out_of_range(v, beta, WIDE).any(-1)
    beyond = bool(bad.any())
    mu, F = _in_fp64(weights.double(), v, beta, causal, clamped=beyond)
    if not beyond:
        return mu, F
    first = first_row(bad, causal)
    mu_exact, F_exact = _log_domain(weights, v, beta, causal)
    return replaced(mu, mu_exact, first), None if F is None or F_exact is None else replaced(F, F_exact, first)


def _in_fp64(
    weights: LinearWeights, v: Tensor, beta: Tensor | None, causal: bool, clamped: bool
) -> tuple[Tensor, Tensor | None]:
    """One pass in fp64, rounded to the dtype of the values."""

    def read(x: Tensor) -> Tensor:
        return _mean(weights, x, causal, WIDE)

    if beta is None:
        return read(v.double()).to(v.dtype), None
    mu, F = one_pass(read, v.double(), beta.double(), clamped=WIDE if clamped else None)
    return mu.to(v.dtype), F.to(v.dtype)


def _log_domain(weights: LinearWeights, v: Tensor, beta: Tensor | None, causal: bool) -> tuple[Tensor, Tensor | None]:
    u = None if beta is None else v * beta
    mu, log_mean = exact_read(weights.log_q, weights.log_k, weights.log_decay, v, u, causal)
    return mu, None if log_mean is None or beta is None else log_mean / beta


def _at(b: Tensor, h: Tensor, some_NT1c: Tensor, like_BTHc: Tensor) -> Tensor:
    """The inverse of `only`, with zeros elsewhere."""
    all_BHTc = some_NT1c.new_zeros(like_BTHc.transpose(1, 2).shape)
    return all_BHTc.index_put((b, h), some_NT1c[:, :, 0]).transpose(1, 2)


_read_opaquely = opaque(
    "linear_read",
    lambda ts, options: [_linear_read(LinearWeights.from_tensors(ts[:-1], options), ts[-1], bool(options[2]))],
    lambda ts: [torch.empty(ts[-1].shape, dtype=ts[-1].dtype, device=ts[-1].device)],
)
_free_energy_opaquely = opaque(
    "linear_free_energy",
    lambda ts, options: _linear_free_energy(
        LinearWeights.from_tensors(ts[:-2], options), ts[-2], ts[-1], bool(options[2])
    ),
    lambda ts: [torch.empty(ts[-2].shape, dtype=ts[-2].dtype, device=ts[-2].device) for _ in range(2)],
)


def _masked(weights: LinearWeights, v: Tensor) -> Tensor:
    return v if weights.mask_BT is None else v.masked_fill(~weights.mask_BT[:, :, None, None], 0.0)


def _mean(weights: LinearWeights, v: Tensor, causal: bool, reach: Reach = NARROW) -> Tensor:
    """The weighted mean, with features that are too faint raised. Rows of padding give ones."""
    q, k = weights.log_q.exp(), threshold(weights.log_k, reach.faint, reach.faint).exp()  # backward faster than clamp
    if weights.mask_BT is not None:
        k = k.masked_fill(~weights.mask_BT[:, :, None, None], 0.0)
    values = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)
    if causal:
        sums = decayed_sums(q, k, values, weights.log_decay)
    else:
        sums = torch.einsum("bthk,bhkw->bthw", q, torch.einsum("bthk,bthw->bhkw", k, values))
    if weights.mask_BT is not None:
        sums = torch.where(weights.mask_BT[:, :, None, None], sums, 1.0)
    return sums[..., :-1] / sums[..., -1:]
