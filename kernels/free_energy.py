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

On a GPU the first and the last are variants of one Triton kernel (`kernels.gpu.free_energy`).

Shape letters: B sequences, S queries, T keys, H heads, k and d channels per head of keys and values.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.attention import compiled, mask_scores, softmax_read
from kernels.cpu.free_energy import FreeEnergy
from kernels.implementations import attempt, triton_module
from kernels.numerics.exponentials import (
    NARROW,
    RANGE,
    SMALL_BETA,
    SMALL_RANGE,
    WIDE,
    Reach,
    first_row,
    in_range,
    log_of,
    one_pass,
    out_of_range,
    replaced,
)
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.log_mean_exp import log_mean_exp
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

BLOCK = 64  # exact rows computed at once

Implementation = Literal["one pass", "one pass in fp64", "exact rows"]
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


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
    wide = v_BTHd.dtype == torch.float32 and not v_BTHd.is_cuda
    return "one pass in fp64" if wide and not out_of_range(v_BTHd, beta_Hd, WIDE).any() else "exact rows"


def free_energy_read(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and free energy of the visible values. Half-precision inputs are computed in fp32, except in Triton.

    Args:
        q_BSHk: queries `[B, S, H, k]`.
        k_BTHk: keys `[B, T, H, k]`.
        v_BTHd: values `[B, T, H, d]`, any finite size.
        beta_Hd: inverse temperatures β > 0 `[H, d]`.
        causal: whether row t sees keys i ≤ t only; needs S = T.
        mask_BT: bool `[B, T]`, True at keys that count; None if all do.

    Returns:
        μ and F, `[B, S, H, d]` each, in the dtype of the values. Rows that see no key (padding) are finite and have no
        meaning.
    """
    tensors = [q_BSHk, k_BTHk, v_BTHd, beta_Hd, *([] if mask_BT is None else [mask_BT])]
    mu, F = _read(tensors, [int(causal)])
    return mu, F


def _free_energy_read(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    given = (q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, mask_BT)
    on_gpu = triton_module("free_energy", v_BTHd, *given)
    if on_gpu is not None:
        return attempt("free_energy", lambda: on_gpu.free_energy_read(*given), lambda: _by_pytorch(*given))
    return _by_pytorch(*given)


def _by_pytorch(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    if v_BTHd.dtype not in (torch.float32, torch.float64):
        return _in_fp32(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, mask_BT)
    scale = q_BSHk.shape[-1] ** -0.5
    if mask_BT is not None:
        q_BSHk, k_BTHk = mask_scores(q_BSHk, k_BTHk, mask_BT, scale)
        v_BTHd = v_BTHd.masked_fill(~mask_BT[:, :, None, None], 0.0)
    if in_range(v_BTHd, beta_Hd):
        return _one_pass(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale)
    first_BH = first_row(out_of_range(v_BTHd, beta_Hd).any(-1), causal)
    mu, fast = _clamped_pass(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale, NARROW)
    b, h = (first_BH < k_BTHk.shape[1]).nonzero(as_tuple=True)
    start = int(first_BH.min())
    F_NSd = _out_of_range(q_BSHk[b, :, h], k_BTHk[b, :, h], v_BTHd[b, :, h], beta_Hd[h], causal, scale, start)
    F_BHSd = F_NSd.new_zeros(fast.transpose(1, 2).shape).index_put((b, h), F_NSd)
    return mu, replaced(fast, F_BHSd.transpose(1, 2), first_BH)


@full_precision
def _in_fp32(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Half-precision values: near βv = 0, exp(βv) in bf16 is 1 ± .004, which loses F where β |v| is below 1e-2."""
    mu, F = _by_pytorch(_wide(q), _wide(k), _wide(v), _wide(beta), *rest)
    return mu.to(v.dtype), F.to(v.dtype)


def _rows(q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*q_BSHk.shape[:3], v_BTHd.shape[-1])
    return v_BTHd.new_empty(shape), v_BTHd.new_empty(shape)


_read = opaque(
    "free_energy_read",
    lambda ts, options: _free_energy_read(ts[0], ts[1], ts[2], ts[3], bool(options[0]), *ts[4:]),
    lambda ts: _rows(*ts),
)


def _one_pass(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    if v.device.type != "cpu" or torch.compiler.is_compiling():
        return one_pass(lambda x: softmax_read(q, k, x, causal, scale=scale), v, beta_Hd)
    if _compiled(q, k, v, beta_Hd):
        return FreeEnergy.apply(q, k, v, beta_Hd, causal, scale, (SMALL_BETA, RANGE, SMALL_RANGE))
    q, k = q.contiguous(), k.contiguous()  # the flash operation, called directly, reads other strides wrongly
    extra = 2 * v.shape[-1] - q.shape[-1]
    if extra > 0:  # zero channels leave the scores unchanged and keep the flash pass
        q, k = pad(q, (0, extra)), pad(k, (0, extra))
    mu_F: tuple[Tensor, Tensor] = _OnePass.apply(q.to(v.dtype), k.to(v.dtype), v, beta_Hd, causal, scale)
    return mu_F


def _compiled(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor) -> bool:
    """Whether the C++ pass takes this call. It clamps values out of range, so it serves the rows before them too."""
    return compiled(q, k, v) and beta_Hd.dtype == v.dtype and beta_Hd.shape == v.shape[2:]


def _clamped_pass(
    q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float, reach: Reach
) -> tuple[Tensor, Tensor]:
    """One pass whose values out of range are clamped: rows that see any are replaced."""
    if _compiled(q, k, v, beta_Hd):
        return FreeEnergy.apply(q, k, v, beta_Hd, causal, scale, (SMALL_BETA, reach.usual, reach.small))
    return one_pass(lambda x: softmax_read(q, k, x, causal, scale=scale), v, beta_Hd, clamped=reach)


class _OnePass(torch.autograd.Function):
    """The CPU implementation in PyTorch.

    Exponentials and logarithms run on contiguous memory: on strided rows they are 10 to 40 times slower.
    """

    @staticmethod
    def forward(ctx, q, k, v, beta_Hd, causal, scale):  # type: ignore[no-untyped-def]
        d, small = v.shape[-1], beta_Hd < SMALL_BETA
        w = v * beta_Hd.to(v.dtype)
        w = torch.where(small, w.expm1(), w.exp()) if small.any() else w.exp_()
        values = _side_by_side(v, w, q.shape[-1])
        out, lse = _flash(q.transpose(1, 2), k.transpose(1, 2), values.transpose(1, 2), 0.0, causal, scale=scale)
        read = out.transpose(1, 2)
        mean = read[..., d : 2 * d].contiguous()
        F = log_of(mean, beta_Hd) if small.any() else mean.log()
        F = F.div_(beta_Hd).to(v.dtype)
        ctx.save_for_backward(q, k, v, beta_Hd, w, values, out, lse, mean, F)
        ctx.options = (causal, scale)
        return read[..., :d].contiguous(), F

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad_mu, grad_F):  # type: ignore[no-untyped-def]
        q, k, v, beta_Hd, w, values, out, lse, mean, F = ctx.saved_tensors
        causal, scale = ctx.options
        d, small = v.shape[-1], beta_Hd < SMALL_BETA
        if small.any():  # from expm1 and its mean to exp and its mean
            w, mean = w + small.to(w.dtype), mean + small.to(mean.dtype)
        to_log = grad_F / beta_Hd.to(grad_F.dtype)
        grad_out = _side_by_side(grad_mu, to_log / mean, out.shape[-1])
        inputs = (x.transpose(1, 2) for x in (q, k, values))
        grads = _flash_backward(grad_out.transpose(1, 2), *inputs, out, lse, 0.0, causal, scale=scale)
        grad_q, grad_k, grad_values = (g.transpose(1, 2) for g in grads)
        grad_u = grad_values[..., d : 2 * d] * w
        grad_v = torch.addcmul(grad_values[..., :d], grad_u, beta_Hd.to(grad_u.dtype))
        grad_beta = (grad_u * v).sum((0, 1)) - (to_log * F).sum((0, 1))
        return grad_q, grad_k, grad_v, grad_beta.to(beta_Hd.dtype), None, None


def _side_by_side(a: Tensor, b: Tensor, width: int) -> Tensor:
    """`[a, b]`, and zeros up to the width of the queries."""
    extra = width - 2 * a.shape[-1]
    return torch.cat((a, b, a.new_zeros(*a.shape[:-1], extra)) if extra else (a, b), dim=-1)


@full_precision
def _out_of_range(
    q_NSk: Tensor, k_NTk: Tensor, v_NTd: Tensor, beta_Nd: Tensor, causal: bool, scale: float, start: int
) -> Tensor:
    """F `[N, S, d]` at the rows from `start` on, of N heads with values out of the range of a pass in their dtype."""
    if v_NTd.dtype != torch.float32 or v_NTd.is_cuda:
        return _exact_rows(q_NSk, k_NTk, v_NTd, beta_Nd, causal, scale, start)
    q, k, v = (x.double().transpose(0, 1)[None] for x in (q_NSk, k_NTk, v_NTd))
    _, F_1SNd = _clamped_pass(q, k, v, beta_Nd.double(), causal, scale, WIDE)
    F_NSd = F_1SNd[0].transpose(0, 1).to(v_NTd.dtype)
    first_1N = first_row(out_of_range(v, beta_Nd, WIDE).any(-1), causal)
    start = int(first_1N.min())
    if start == v_NTd.shape[1]:
        return F_NSd
    return replaced(F_NSd, _exact_rows(q_NSk, k_NTk, v_NTd, beta_Nd, causal, scale, start), first_1N[0])


def _exact_rows(
    q_NSk: Tensor, k_NTk: Tensor, v_NTd: Tensor, beta_Nd: Tensor, causal: bool, scale: float, start: int
) -> Tensor:
    """F `[N, S, d]` at the rows from `start` on, zeros before them. Work S·T·d, memory of one block."""
    q_NSk, k_NTk = _wide(q_NSk), _wide(k_NTk)
    u_NTd, S = v_NTd * beta_Nd[:, None], q_NSk.shape[1]
    blocks = [u_NTd.new_zeros(len(u_NTd), start, u_NTd.shape[-1])]
    for rows in (slice(i, min(i + BLOCK, S)) for i in range(start, S, BLOCK)):
        seen = slice(0, rows.stop if causal else k_NTk.shape[1])
        scores = scale * q_NSk[:, rows] @ k_NTk[:, seen].transpose(1, 2)
        if causal:
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1 + rows.start)
            scores = scores.masked_fill(hidden, float("-inf"))
        blocks.append(log_mean_exp(scores.log_softmax(-1), u_NTd[:, seen]))
    return torch.cat(blocks, dim=1) / beta_Nd[:, None]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
