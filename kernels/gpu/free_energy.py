"""Free-energy flash attention: mean and free energy of a softmax prior in one pass over the keys.

Arguments as in `kernels.free_energy`. There are two variants of each kernel, one launch each; a block of rows is
computed by exactly one of them, chosen by `first`, the first row of a head that sees a value out of range. No value is
read back to the host for that.

- bounded (|βv| ≤ 30, 4 where β < ½): the values are `[v, exp(βv)]` (expm1 where β is small), both on tensor cores,
  without a maximum per channel.
- exact: any finite value. In addition to the online maximum m of the logits there is one for each row and channel, of
  logit + βv − m. A tile of keys is shifted by its largest value in each channel and uses tensor cores while its values
  span ≤ FAR (nothing underflows then, since the tile has its own maximum of the logits too); otherwise it is computed
  key by key. In tiles that contain the future of a row the span is ≤ NEAR, so that the future does not change the last
  digits of the past. Where β < ½ the mean of expm1(βv) is computed in addition.

A row that has seen no key has the maximum HIDDEN, finite instead of −∞, so that no difference of two is NaN; the first
visible key erases its effect.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import free_energy_backward as backward_kernels
from kernels.gpu.shared.elementary import expm1, log1p
from kernels.gpu.shared.launch import Config, blocks, contiguous, dot_precision, launch, padded, split, target, tuned
from kernels.gpu.shared.tiles import carried, column, row, tile
from kernels.numerics.exponentials import first_row, out_of_range
from kernels.numerics.first_derivative import first_derivative_only

#: Most key channels per head: a tile of queries is held in registers, fp32 as several parts.
WIDEST = {torch.bfloat16: 128, torch.float32: 64}
#: Value channels per head; wider heads are read as several heads with the same weights.
PIECE = {torch.bfloat16: 64, torch.float32: 32}
#: Of βv where the mean of expm1 is computed: its exponential times many tokens is finite.
EXACT_RANGE = tl.constexpr(60.0)
FAR = tl.constexpr(40.0)
NEAR = tl.constexpr(16.0)
HIDDEN = tl.constexpr(-1e30)


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    beta,
    mask,
    first,
    mu,
    free,
    rho,
    lse,
    rows,
    tokens,
    heads,
    scale,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """μ, F in the dtype of v; ρ = βF and the log-sum-exp of the logits in fp32."""
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M  # the longest rows first
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    exact_from = tl.load(first + tl.program_id(1))
    stop = tl.minimum(start + M, rows)
    if EXACT:
        if stop <= exact_from:
            return
    elif stop > exact_from:
        return
    here, channels = start + tl.arange(0, M), tl.arange(0, D)
    beta_D = tl.load(beta + h * VALUE + channels, mask=channels < VALUE, other=1.0)
    small_D = beta_D < 0.5
    any_small = tl.max(small_D.to(tl.int32), 0) > 0
    query = tile(q + (b * rows * heads + h) * KEY, here, heads * KEY, rows, KEY, K)
    top = tl.full([M], HIDDEN, tl.float32)  # of the logits so far
    mass = tl.zeros([M], tl.float32)
    # sums of v; of w, or of expm1 where β is small
    mean, carry = tl.zeros([M, D], tl.float32), tl.zeros([M, D], tl.float32)
    # exact: Σ exp(logit − top + βv) = total·exp(peak)
    peak, total = tl.full([M, D], HIDDEN, tl.float32), tl.zeros([M, D], tl.float32)
    for begin in tl.range(0, stop if CAUSAL else tokens, N, disable_licm=True):
        keys = begin + tl.arange(0, N)
        there = keys < tokens
        if MASKED:
            there = there & (tl.load(mask + b * tokens + keys, mask=there, other=0) != 0)
        key = tile(k + (b * tokens * heads + h) * KEY, keys, heads * KEY, tokens, KEY, K)
        value = tl.where(
            there[:, None], tile(v + (b * tokens * heads + h) * VALUE, keys, heads * VALUE, tokens, VALUE, D), 0.0
        )
        s = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        seen = there[None, :]
        if CAUSAL:
            seen = seen & (keys[None, :] <= here[:, None])
        s = tl.where(seen, s, HIDDEN)
        u = value.to(tl.float32) * beta_D[None, :]
        of_tile = tl.max(s, 1)
        new_top = tl.maximum(top, of_tile)
        keep = tl.exp(top - new_top)
        if EXACT:
            add = tl.exp(of_tile - new_top)
            p = tl.exp(s - of_tile[:, None])
            mass = mass * keep + tl.sum(p, 1) * add
            p = p.to(value.dtype)
            mean = mean * keep[:, None] + tl.dot(p, value, input_precision=PRECISION) * add[:, None]
            if any_small:
                w = expm1(tl.minimum(u, EXACT_RANGE)).to(value.dtype)
                carry = carry * keep[:, None] + tl.dot(p, w, input_precision=PRECISION) * add[:, None]
            highest = tl.max(tl.where(there[:, None], u, -float("inf")), 0)
            lowest = tl.min(tl.where(there[:, None], u, float("inf")), 0)
            peak += (top - new_top)[:, None]
            widest = FAR
            if CAUSAL:
                widest = tl.where(begin + N > start, NEAR, FAR)
            if tl.max(highest - lowest, 0) <= widest:
                w = tl.where(there[:, None], tl.exp(tl.minimum(u - highest[None, :], 0.0)), 0.0).to(value.dtype)
                new = tl.dot(p, w, input_precision=PRECISION)
                at = (of_tile - new_top)[:, None] + highest[None, :]
                higher = tl.maximum(peak, at)
                total = total * tl.exp(peak - higher) + new * tl.exp(at - higher)
                peak = higher
            else:
                for n in range(N):
                    z = (column(s, n, N) - new_top)[:, None] + row(u, n, N)[None, :]
                    higher = tl.maximum(peak, z)
                    total = total * tl.exp(peak - higher) + tl.exp(z - higher)
                    peak = higher
        else:
            p = tl.exp(s - new_top[:, None])
            mass = mass * keep + tl.sum(p, 1)
            p = p.to(value.dtype)
            w = carried(u, small_D).to(value.dtype)
            mean = tl.dot(p, value, mean * keep[:, None], input_precision=PRECISION)
            carry = tl.dot(p, w, carry * keep[:, None], input_precision=PRECISION)
        top = new_top
    carry = carry / mass[:, None]
    if EXACT:
        rho_MD = peak + tl.log(total) - tl.log(mass)[:, None]
        rho_MD = tl.where(small_D[None, :] & (tl.abs(carry) <= 0.5), log1p(carry), rho_MD)
    else:
        rho_MD = tl.where(
            small_D[None, :],
            log1p(tl.where(small_D[None, :], carry, 0.0)),
            tl.log(tl.where(small_D[None, :], 1.0, carry)),
        )
    inside = (here < rows)[:, None] & (channels < VALUE)[None, :]
    to = (b * rows * heads + h) * VALUE + here[:, None] * (heads * VALUE) + channels[None, :]
    tl.store(mu + to, (mean / mass[:, None]).to(mu.dtype.element_ty), mask=inside)
    tl.store(free + to, (rho_MD / beta_D[None, :]).to(free.dtype.element_ty), mask=inside)
    tl.store(rho + to, rho_MD, mask=inside)
    tl.store(lse + (b * rows + here) * heads + h, top + tl.log(mass), mask=here < rows)


def refusal(
    q_BSHk: Tensor,
    k_BTHk: Tensor,
    v_BTHd: Tensor,
    beta_Hd: Tensor,
    causal: bool,
    mask_BT: Tensor | None = None,
    log_f_BTH: Tensor | None = None,
) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if log_f_BTH is not None:
        return "it has no gates"
    name = str(v_BTHd.dtype).removeprefix("torch.")
    if v_BTHd.dtype not in WIDEST:
        return f"it takes float32 and bfloat16, not {name}"
    if q_BSHk.shape[-1] > WIDEST[v_BTHd.dtype]:
        return f"it takes {name} keys up to {WIDEST[v_BTHd.dtype]} channels per head, not {q_BSHk.shape[-1]}"
    return None


def free_energy_read(
    q_BSHk: Tensor, k_BTHk: Tensor, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(μ, F), as `kernels.free_energy.free_energy_read`, for fp32 and bf16 and |βv| below 1e29."""
    q, k, width = q_BSHk.to(v_BTHd.dtype), k_BTHk.to(v_BTHd.dtype), v_BTHd.shape[-1]
    pieces = blocks(width, PIECE[v_BTHd.dtype])  # become separate heads, with the same weights
    v, beta = split(v_BTHd, pieces), split(beta_Hd.float(), pieces, fill=1.0)
    if pieces > 1:
        q, k = q.repeat_interleave(pieces, 2), k.repeat_interleave(pieces, 2)
    mu_F: tuple[Tensor, Tensor] = _FreeEnergy.apply(q, k, v, beta, causal, mask_BT)
    mu, F = (x.unflatten(2, (-1, pieces)).flatten(3)[..., :width] for x in mu_F)
    return mu, F


def first_exact_row(v_BTHd: Tensor, beta_Hd: Tensor, causal: bool, mask_BT: Tensor | None) -> Tensor:
    """`[B·H]`: rows from here on need the exact variant; beyond any row where none does."""
    bad_BTH = out_of_range(v_BTHd, beta_Hd).any(-1)
    if mask_BT is not None:
        bad_BTH = bad_BTH & mask_BT[..., None]
    first_BH = first_row(bad_BTH, causal)
    return torch.where(bad_BTH.any(1), first_BH, 1 << 30).to(torch.int32).flatten().contiguous()


class _FreeEnergy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, causal: bool, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        first = first_exact_row(v, beta, causal, mask)
        q, k, v, beta = contiguous(q, k, v, beta)
        mask = None if mask is None else mask.to(torch.int8).contiguous()
        mu, free = (v.new_empty(*q.shape[:3], v.shape[-1]) for _ in range(2))
        rho, lse = torch.empty_like(mu, dtype=torch.float32), mu.new_empty(q.shape[:3], dtype=torch.float32)
        shared = common(q, k, v, beta, mask, first, causal)
        grid = q.shape[0] * q.shape[2]
        for exact in (False, True):

            def run(config: Config, exact: bool = exact) -> None:
                where = (blocks(q.shape[1], config["M"]), grid)
                launch(forward_kernel, where, config, **shared, mu=mu, free=free, rho=rho, lse=lse, EXACT=exact)

            key = ("free energy", exact, shared["K"], shared["D"], v.dtype, causal, q.shape[1].bit_length())
            run(tuned(key, forward_configs(v.dtype, shared["K"], exact), run))
        ctx.save_for_backward(q, k, v, beta, mask, first, mu, rho, lse)
        ctx.causal = causal
        return mu, free

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad_mu: Tensor, grad_free: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, beta, mask, first, mu, rho, lse = ctx.saved_tensors
        shared = common(q, k, v, beta, mask, first, ctx.causal)
        return (*backward_kernels.gradients(shared, grad_mu, grad_free, mu, rho, lse), None, None)


def common(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, mask: Tensor | None, first: Tensor, causal: bool
) -> dict[str, Any]:
    """The arguments of all kernels of this module."""
    return {
        "q": q,
        "k": k,
        "v": v,
        "beta": beta,
        "mask": mask,
        "first": first,
        "rows": q.shape[1],
        "tokens": k.shape[1],
        "heads": k.shape[2],
        "scale": float(q.shape[-1] ** -0.5),
        "KEY": k.shape[-1],
        "VALUE": v.shape[-1],
        "K": padded(k.shape[-1]),
        "D": padded(v.shape[-1]),
        "CAUSAL": causal,
        "MASKED": mask is not None,
        "PRECISION": dot_precision(v.dtype),
    }


def forward_configs(dtype: torch.dtype, K: int, exact: bool) -> list[Config]:
    """Found by compiling ahead of time: no spills. The shape with most rows is first."""
    if exact and target() in ("sm_100", "gfx942"):
        return [Config.of(warps=8 if target() == "sm_100" else 4, stages=1, M=16, N=16)]
    if exact or dtype == torch.float32:
        return [Config.of(warps=4, stages=1, M=32, N=32)]
    if target() == "gfx942":
        return [Config.of(warps=4, stages=1, M=64, N=32)]
    N = 64 if K <= 64 else 32
    return [Config.of(warps=8, stages=2, M=128, N=N), Config.of(warps=4, stages=2, M=64, N=N)]
