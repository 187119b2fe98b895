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
from kernels.exponentials import SMALL_BETA, first_row, in_range, log_of, one_pass, out_of_range, replaced
from kernels.log_mean_exp import log_mean_exp
from kernels.precision import full_precision

BLOCK = 64  # rows at once of the exact form

Implementation = Literal["one pass", "exact rows"]
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def implementation(v_BTHd: Tensor, beta_Hd: Tensor) -> Implementation:
    """Which implementation these values need."""
    return "one pass" if in_range(v_BTHd, beta_Hd) else "exact rows"


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
    first_BH = first_row(out_of_range(v_BTHd, beta_Hd).any(-1), causal)
    mu, fast = one_pass(lambda x: softmax_read(q_BSHk, k_BTHk, x, causal, scale=scale), v_BTHd, beta_Hd, clamped=True)
    return mu, replaced(fast, _exact_rows(q_BSHk, k_BTHk, v_BTHd, beta_Hd, causal, scale, first_BH), first_BH)


def _one_pass(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    if v.device.type != "cpu" or torch.compiler.is_compiling():
        return one_pass(lambda x: softmax_read(q, k, x, causal, scale=scale), v, beta_Hd)
    extra = 2 * v.shape[-1] - q.shape[-1]
    if extra > 0:  # zero channels leave the scores as they are and keep the flash pass
        q, k = pad(q, (0, extra)), pad(k, (0, extra))
    mu_F: tuple[Tensor, Tensor] = _OnePass.apply(q.to(v.dtype), k.to(v.dtype), v, beta_Hd, causal, scale)
    return mu_F


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
        F = log_of(mean, beta_Hd) if any_small else torch.log(mean, out=v.new_empty(v.shape[0], q.shape[1], H, d))
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


@full_precision
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
