"""Mean and free energy of the values under a softmax prior (arXiv 2602.07160): per query t and channel j

    μ_tj = Σ_i p_t(i) v_ij        F_tj = (1/β_j) log Σ_i p_t(i) exp(β_j v_ij)        p_t(i) = softmax_i(q_t·k_i/√k)

Three implementations; `implementation` reports which one runs, for the cost of one reduction over v:

- "one pass": `[v, exp(βv)]` are the values of ONE flash attention pass. It serves every row whose visible keys have
  |βv| ≤ 30 (|βv| ≤ 4 in channels with β < ½): no shift is needed there, so nothing depends on tokens that a row doesn't
  see. Channels with β < ½ carry `expm1(βv)` and end in log1p, exact down to β → 0, where log and exp would cancel.
- "one pass in fp64": the same for the other rows of fp32 values up to |βv| ≤ 250 (18), of the heads that have any.
- "exact rows": log-sum-exp over scores and values together, for any finite v, many times more expensive. It serves the
  rows that are left, and those of fp64.

Which one is chosen by row: a huge value late in a sequence changes nothing before it.

In Triton the first and the last are variants of one kernel (`kernels.gpu.free_energy`).

Shape letters: B sequences, S queries, T keys, H heads, k and d channels per head of keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.attention import compiled, mask_scores, softmax_read
from kernels.cpu.attention import Options
from kernels.cpu.free_energy import FreeEnergy
from kernels.implementations import attempt, triton_module
from kernels.numerics.exponentials import (
    NARROW,
    SMALL_BETA,
    WIDE,
    Reach,
    first_row,
    in_range,
    one_pass,
    out_of_range,
    replaced,
)
from kernels.numerics.flash_pass import FlashPass
from kernels.numerics.log_mean_exp import log_mean_exp
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

BLOCK = 64  # exact rows computed at once

Implementation = Literal["one pass", "one pass in fp64", "exact rows"]


def implementation(v_BTHd: Tensor, beta_Hd: Tensor) -> Implementation:
    """Which implementation these values need.

    Args:
        v_BTHd: values `[B, T, H, d]`.
        beta_Hd: inverse temperatures β > 0 `[H, d]`.

    Returns:
        The one of the rows that see every key.
    """
    if in_range(v_BTHd, beta_Hd):
        return "one pass"
    wide = v_BTHd.dtype != torch.float64 and not out_of_range(v_BTHd, beta_Hd, WIDE).any()
    return "one pass in fp64" if wide else "exact rows"


def free_energy_read(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHd: Tensor,
    beta_Hd: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    log_f_BTH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and free energy of the visible values. Half-precision inputs are computed in fp32, except in Triton.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        v_BTHd: values `[B, T, H, d]`, any finite size.
        beta_Hd: inverse temperatures β > 0 `[H, d]`.
        causal: whether row t sees keys i ≤ t only; needs S = T.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.
        log_f_BTH: gates `[B, T, H]`, as in `kernels.attention.softmax_read`; None for none.

    Returns:
        μ and F, `[B, S, H, d]` each, in the dtype of the values. Rows that see no key (padding) are finite and have no
        meaning.
    """
    optional = [x for x in (mask_BT, log_f_BTH) if x is not None]
    given = [int(causal), int(mask_BT is not None), int(log_f_BTH is not None)]
    mu, F = _read([q_BSHk, k_BTHk, v_BTHd, beta_Hd, *optional], given)
    return mu, F


def _free_energy_read(ts: list[Tensor], options: list[int]) -> tuple[Tensor, Tensor]:
    (q, k, v, beta), (causal, masked, gated) = ts[:4], map(bool, options)
    mask, log_f = ts[4] if masked else None, ts[-1] if gated else None
    given = (q, k, v, beta, causal, mask)
    on_gpu = triton_module("free_energy", v, *given, log_f)
    if on_gpu is not None:
        return attempt("free_energy", lambda: on_gpu.free_energy_read(*given), lambda: _by_pytorch(*given))
    return _by_pytorch(*given, log_f)


def _by_pytorch(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHd: Tensor,
    beta_Hd: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    log_f_BTH: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if v_BTHd.dtype not in (torch.float32, torch.float64):
        return _in_fp32(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, mask_BT, log_f_BTH)
    scale = q_BSHk.shape[-1] ** -0.5
    if mask_BT is not None:
        q_BSHk, k_BTHk = mask_scores(q_BSHk, k_BTHk, mask_BT, scale)
        v_BTHd = v_BTHd.masked_fill(~mask_BT[:, :, None, None], 0.0)
    see = _Visible(causal, scale, log_f_BTH)
    if in_range(v_BTHd, beta_Hd):
        return _one_pass(q_BSHk, k_BTHk, v_BTHd, beta_Hd, see)
    first_BH = first_row(out_of_range(v_BTHd, beta_Hd).any(-1), causal)
    mu, fast = _clamped_pass(q_BSHk, k_BTHk, v_BTHd, beta_Hd, see, NARROW)
    seen_BH = first_BH < k_BTHk.shape[1]
    b, h = seen_BH.nonzero(as_tuple=True)
    some = replace(see, log_f=None if log_f_BTH is None else log_f_BTH[b, :, h].T[None])
    start = int(first_BH.min())
    F_NSd = _out_of_range(q_BSHk[b, :, h], k_BTHk[b, :, h], v_BTHd[b, :, h], beta_Hd[h], some, start)
    F_BHSd = F_NSd.new_zeros(fast.transpose(1, 2).shape).index_put((b, h), F_NSd)
    first_BH = first_BH.masked_fill(~seen_BH, q_BSHk.shape[1])  # there may be more rows than keys
    return mu, replaced(fast, F_BHSd.transpose(1, 2), first_BH)


@full_precision
def _in_fp32(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Half-precision values: near βv = 0, exp(βv) in bf16 is 1 ± .004, which loses F where β |v| is below 1e-2."""
    mu, F = _by_pytorch(_wide(q), _wide(k), _wide(v), _wide(beta), *rest)
    return mu.to(v.dtype), F.to(v.dtype)


def _rows(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*q_BSHk.shape[:3], v_BTHd.shape[-1])
    return v_BTHd.new_empty(shape), v_BTHd.new_empty(shape)


_read = opaque("free_energy_read", _free_energy_read, lambda ts: _rows(*ts))


@dataclass(frozen=True)
class _Visible:
    """What rows see, and how much of it: keys up to the row or all, the scale of the scores, gates `[B, T, H]`."""

    causal: bool
    scale: float
    log_f: Tensor | None

    def read(self, q: Tensor, k: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: softmax_read(q, k, x, self.causal, scale=self.scale, log_f_BTH=self.log_f)


def _one_pass(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, see: _Visible) -> tuple[Tensor, Tensor]:
    if v.device.type != "cpu" or torch.compiler.is_compiling():
        return one_pass(see.read(q, k), v, beta_Hd)
    if _compiled(q, k, v, beta_Hd, see):
        return _by_cpp(q, k, v, beta_Hd, see, NARROW)
    if see.log_f is not None:
        return one_pass(see.read(q, k), v, beta_Hd)
    q, k = q.contiguous(), k.contiguous()  # the flash operation, called directly, reads other strides wrongly
    extra = 2 * v.shape[-1] - q.shape[-1]
    if extra > 0:  # zero channels leave the scores unchanged and keep the flash pass
        q, k = pad(q, (0, extra)), pad(k, (0, extra))
    mu_F: tuple[Tensor, Tensor] = FlashPass.apply(q.to(v.dtype), k.to(v.dtype), v, beta_Hd, see.causal, see.scale)
    return mu_F


def _compiled(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, see: _Visible) -> bool:
    """Whether the C++ pass takes this call. It clamps values out of range, so it serves the rows before them too."""
    return compiled(q, k, v, see.log_f) and beta_Hd.dtype == v.dtype and beta_Hd.shape == v.shape[2:]


def _by_cpp(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, see: _Visible, reach: Reach) -> tuple[Tensor, Tensor]:
    limits = (SMALL_BETA, reach.usual, reach.small)
    mu_F: tuple[Tensor, Tensor] = FreeEnergy.apply(q, k, v, beta_Hd, see.log_f, Options(see.causal, see.scale), limits)
    return mu_F


def _clamped_pass(
    q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, see: _Visible, reach: Reach
) -> tuple[Tensor, Tensor]:
    """One pass whose values out of range are clamped: rows that see any are replaced."""
    if _compiled(q, k, v, beta_Hd, see):
        return _by_cpp(q, k, v, beta_Hd, see, reach)
    return one_pass(see.read(q, k), v, beta_Hd, clamped=reach)


@full_precision
def _out_of_range(q_NSk: Tensor, k_NTk: Tensor, v_NTd: Tensor, beta_Nd: Tensor, see: _Visible, start: int) -> Tensor:
    """F `[N, S, d]` at the rows from `start` on, of N heads with values out of the range of a pass in their dtype.

    The gates are `[1, T, N]`: N heads of one sequence.
    """
    if v_NTd.dtype != torch.float32:
        return _exact_rows(q_NSk, k_NTk, v_NTd, beta_Nd, see, start)
    q, k, v = (x.double().transpose(0, 1)[None] for x in (q_NSk, k_NTk, v_NTd))
    in_fp64 = replace(see, log_f=None if see.log_f is None else see.log_f.double())
    _, F_1SNd = _clamped_pass(q, k, v, beta_Nd.double(), in_fp64, WIDE)
    F_NSd = F_1SNd[0].transpose(0, 1).to(v_NTd.dtype)
    first_1N = first_row(out_of_range(v, beta_Nd, WIDE).any(-1), see.causal)
    start = int(first_1N.min())
    if start == v_NTd.shape[1]:
        return F_NSd
    return replaced(F_NSd, _exact_rows(q_NSk, k_NTk, v_NTd, beta_Nd, see, start), first_1N[0])


def _exact_rows(q_NSk: Tensor, k_NTk: Tensor, v_NTd: Tensor, beta_Nd: Tensor, see: _Visible, start: int) -> Tensor:
    """F `[N, S, d]` at the rows from `start` on, zeros before them. Work S·T·d, memory of one block.

    In fp64: exponents in the thousands have three digits after the point in fp32.
    """
    dtype, q_NSk, k_NTk, beta_Nd = v_NTd.dtype, q_NSk.double(), k_NTk.double(), beta_Nd.double()
    u_NTd, S, T = v_NTd * beta_Nd[:, None], q_NSk.shape[1], k_NTk.shape[1]
    sums_NT = None if see.log_f is None else see.log_f[0].double().cumsum(0).T
    blocks = [u_NTd.new_zeros(len(u_NTd), start, u_NTd.shape[-1])]
    for rows in (slice(i, min(i + BLOCK, S)) for i in range(start, S, BLOCK)):
        seen = slice(0, rows.stop if see.causal else T)
        scores = see.scale * q_NSk[:, rows] @ k_NTk[:, seen].transpose(1, 2)
        if sums_NT is not None:
            scores = scores - (sums_NT[:, rows, None] - sums_NT[:, None, seen]).abs()
        if see.causal:
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1 + rows.start)
            scores = scores.masked_fill(hidden, float("-inf"))
        blocks.append(log_mean_exp(scores.log_softmax(-1), u_NTd[:, seen]))
    return (torch.cat(blocks, dim=1) / beta_Nd[:, None]).to(dtype)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
