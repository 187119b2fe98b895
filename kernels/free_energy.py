"""Free-energy read over a softmax prior: per query t and channel j

    μ_tj = Σ_i p_t(i) v_ij        F_tj = (1/β_j) log Σ_i p_t(i) exp(β_j v_ij)        p_t(i) = softmax_i(q_t·k_i/√k)

(arXiv 2602.07160.) Contract: q `[B, S, H, k]`, k `[B, T, H, k]`, v `[B, T, H, d]`, β `[H, d]` positive; μ and F `[B, S, H, d]`.
Causal needs S = T. `mask_BT` is True at keys that count; rows that see none are finite and mean nothing.

Two implementations; `implementation` says which one runs, at the price of one reduction over v:

- "one pass": `[v, exp(βv)]` are the values of ONE flash attention pass. Taken by every row whose visible keys have |βv| ≤ 30
  (|βv| ≤ 4 in channels with β < ½): no shift is needed there, so nothing depends on tokens that a row doesn't see.
  Channels with β < ½ carry `expm1(βv)` and end in log1p, exact down to β → 0 where the plain form cancels.
- "exact rows": log-sum-exp over scores and values together, any finite v, many times dearer. Taken by the remaining rows of the
  remaining heads: by rows, not by tensors, so that a huge value late in a sequence changes nothing before it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.attention import mask_scores, softmax_read
from kernels.log_mean_exp import log_mean_exp

RANGE = 30.0  # of |βv| without a shift; at 40 the flash pass's fp32 gradients overflow inside a block
SMALL_BETA = 0.5  # below: expm1 and log1p
SMALL_RANGE = 4.0  # of |βv| where a mean of expm1 keeps its digits
BLOCK = 64  # rows at once of the exact form

Implementation = Literal["one pass", "exact rows"]
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def implementation(v_BTHd: Tensor, beta_Hd: Tensor) -> Implementation:
    """Which implementation these values need. One reduction over v (on the meta device there are no values: one pass)."""
    if v_BTHd.is_meta:
        return "one pass"
    with torch.no_grad():
        top_Hd = torch.maximum(v_BTHd.amax((0, 1)), -v_BTHd.amin((0, 1)))
        return "one pass" if bool((top_Hd * beta_Hd <= _limit(beta_Hd)).all()) else "exact rows"


def free_energy_read(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(μ, F). Exact rows of half-precision inputs are computed in fp32."""
    scale = q_BSHk.shape[-1] ** -0.5
    if mask_BT is not None:
        q_BSHk, k_BTHk = mask_scores(q_BSHk, k_BTHk, mask_BT, scale)
        v_BTHd = v_BTHd.masked_fill(~mask_BT[:, :, None, None], 0.0)
    if implementation(v_BTHd, beta_Hd) == "one pass":
        return _one_pass(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale)
    first_BH = _first_row_out_of_range(v_BTHd, beta_Hd, causal)
    mu, fast = _formula(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale, _limit(beta_Hd))
    row_S = torch.arange(q_BSHk.shape[1], device=v_BTHd.device)
    needed_BSH = row_S[:, None] >= first_BH[:, None]
    exact = _exact_rows(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale, first_BH)
    return mu, torch.where(needed_BSH[..., None], exact.to(fast.dtype), fast)


def _limit(beta_Hd: Tensor) -> Tensor:
    """The largest |βv| of the one pass, a channel."""
    return torch.where(beta_Hd < SMALL_BETA, SMALL_RANGE, RANGE)


def _first_row_out_of_range(v_BTHd: Tensor, beta_Hd: Tensor, causal: bool) -> Tensor:
    """`[B, H]`: the first row that sees a value out of range (T where none does)."""
    with torch.no_grad():
        bad_BTH = ~((v_BTHd * beta_Hd).abs() <= _limit(beta_Hd)).all(-1)
        first_BH = torch.where(bad_BTH.any(1), bad_BTH.int().argmax(1), v_BTHd.shape[1])
        return first_BH if causal else torch.where(first_BH < v_BTHd.shape[1], 0, v_BTHd.shape[1])


def _one_pass(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    if v.device.type != "cpu" or torch.compiler.is_compiling():
        return _formula(q, k, v, beta_Hd, causal, scale)
    extra = 2 * v.shape[-1] - q.shape[-1]
    if extra > 0:  # zero channels leave the scores as they are and keep the flash pass
        q, k = pad(q, (0, extra)), pad(k, (0, extra))
    mu_F: tuple[Tensor, Tensor] = _OnePass.apply(q.to(v.dtype), k.to(v.dtype), v, beta_Hd, causal, scale)
    return mu_F


def _formula(
    q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float, limit_Hd: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The one pass in plain operations. `limit_Hd` clamps βv: rows that see such values are replaced by exact ones."""
    u = v * beta_Hd if limit_Hd is None else torch.clamp(v * beta_Hd, -limit_Hd, limit_Hd)
    small = beta_Hd < SMALL_BETA
    w = torch.where(small, u.expm1(), u.exp()).to(v.dtype)
    read = softmax_read(q, k, torch.cat((v, w), dim=-1), causal, scale=scale)
    mu, mean = read.chunk(2, dim=-1)
    return mu, (_log(mean, small) / beta_Hd).to(v.dtype)


def _log(mean: Tensor, small: Tensor) -> Tensor:
    """log of the mean of exp: `mean` is that of expm1 in small channels. Both branches stay finite, in backward too."""
    return torch.where(small, torch.where(small, mean, 0.0).log1p(), torch.where(small, 1.0, mean).log())


class _OnePass(torch.autograd.Function):
    """The CPU form: values are written straight into the pass's buffer, and backward needs no second exp."""

    @staticmethod
    def forward(ctx, q, k, v, beta_Hd, causal, scale):  # type: ignore[no-untyped-def]
        B, T, H, d = v.shape
        small = beta_Hd < SMALL_BETA
        any_small = bool(small.any())
        buffer = v.new_zeros(B, T, H, q.shape[-1]) if q.shape[-1] > 2 * d else v.new_empty(B, T, H, 2 * d)
        buffer[..., :d] = v
        w = torch.mul(v, beta_Hd, out=buffer[..., d : 2 * d])
        if any_small:
            w.copy_(torch.where(small, w.expm1(), w.exp()))
        else:
            w.exp_()
        out, lse = _flash(q.transpose(1, 2), k.transpose(1, 2), buffer.transpose(1, 2), 0.0, causal, scale=scale)
        read = out.transpose(1, 2)
        mean = read[..., d : 2 * d]
        F = _log(mean, small) if any_small else torch.log(mean, out=v.new_empty(v.shape[0], q.shape[1], H, d))
        F = F.div_(beta_Hd).to(v.dtype)
        ctx.save_for_backward(q, k, v, beta_Hd, buffer, out, lse, F)
        ctx.options = (causal, scale, small if any_small else None)
        return read[..., :d], F

    @staticmethod
    def backward(ctx, grad_mu, grad_F):  # type: ignore[no-untyped-def]
        q, k, v, beta_Hd, buffer, out, lse, F = ctx.saved_tensors
        causal, scale, small = ctx.options
        d = v.shape[-1]
        mean = out.transpose(1, 2)[..., d : 2 * d]
        w = buffer[..., d : 2 * d]
        if small is not None:
            mean, w = mean + small.to(mean.dtype), w + small.to(w.dtype)
        grad_read = torch.zeros_like(out.transpose(1, 2)) if out.shape[-1] > 2 * d else torch.empty_like(out.transpose(1, 2))
        grad_read[..., :d] = grad_mu
        torch.div(grad_F / beta_Hd, mean, out=grad_read[..., d : 2 * d])
        gq, gk, gv = _flash_backward(
            grad_read.transpose(1, 2), q.transpose(1, 2), k.transpose(1, 2), buffer.transpose(1, 2), out, lse, 0.0, causal, scale=scale
        )
        gv = gv.transpose(1, 2)
        grad_u = gv[..., d : 2 * d] * w
        grad_v = torch.addcmul(gv[..., :d], grad_u, beta_Hd.to(grad_u.dtype))
        grad_beta = (grad_u * v).sum((0, 1)) - (grad_F * F).sum((0, 1)) / beta_Hd
        return gq.transpose(1, 2), gk.transpose(1, 2), grad_v, grad_beta.to(beta_Hd.dtype), None, None


def _exact_rows(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float, first_BH: Tensor) -> Tensor:
    """F `[B, S, H, d]` at the rows from `first_BH` on; zeros elsewhere. Work S·T·d, memory of one block."""
    T = v.shape[1]
    b, h = (first_BH < T).nonzero(as_tuple=True)
    q_NSk, k_NTk, v_NTd = (_wide(x.transpose(1, 2)[b, h]) for x in (q, k, v))
    u_NTd, S = v_NTd * beta_Hd[h, None], q.shape[1]
    start = int(first_BH.min())
    blocks = [u_NTd.new_zeros(len(b), start, v.shape[-1])]
    for rows in (slice(i, min(i + BLOCK, S)) for i in range(start, S, BLOCK)):
        seen = slice(0, rows.stop if causal else T)
        scores = scale * q_NSk[:, rows] @ k_NTk[:, seen].transpose(1, 2)
        if causal:
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(1 + rows.start)
            scores = scores.masked_fill(hidden, float("-inf"))
        blocks.append(log_mean_exp(scores.log_softmax(-1), u_NTd[:, seen]))
    F_NSd = torch.cat(blocks, dim=1) / beta_Hd[h, None]
    out = F_NSd.new_zeros(v.shape[0], v.shape[2], S, v.shape[-1])
    return out.index_put((b, h), F_NSd).transpose(1, 2)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
