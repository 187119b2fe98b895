"""Gradients of the free-energy flash attention. With p the prior's weights, ρ = βF and z the gradient of ρ:

    ∂logit_ti = p_ti [ (∂μ_t·v_i − D^μ_t) + (Σ_j z_tj e^{−ρ_tj} w_ij − D^F_t) ]
    D^μ_t     = ∂μ_t·μ_t                             D^F_t = Σ_j z_tj e^{−ρ_tj} w(ρ_tj)
    ∂v_ij     = Σ_t p_ti ∂μ_tj + β_j x_ij            x_ij  = Σ_t z_tj p_ti e^{u_ij − ρ_tj}
    ∂β_j      = Σ_i v_ij x_ij − Σ_t z_tj F_tj

with w(u) = expm1(u) where β < ½ and exp(u) elsewhere: the constant cancels, and expm1 keeps the digits of small u. In
the exact variant a tile is shifted as in forward while no factor leaves e^{±FAR}; otherwise the posterior p e^{u−ρ} ≤ 1
of each key is computed as one exponential.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.shared.elementary import expm1, posterior
from kernels.gpu.shared.launch import Config, blocks, launch, target
from kernels.gpu.shared.tiles import carried, column, row, store_tile, tile
from kernels.numerics.exponentials import RANGE, SMALL_BETA, SMALL_RANGE

FAR = tl.constexpr(40.0)
SMALL = tl.constexpr(SMALL_RANGE)
SMALL_RHO = tl.constexpr(2 * SMALL_RANGE)
HIDDEN = tl.constexpr(-1e30)


@triton.jit
def factors(u, rho, there, inside, small_D):
    """Whether the posteriors of a tile factorise within e^{±FAR}, and its shift per channel (0 where β is small)."""
    highest = tl.max(tl.where(there[:, None], u, -float("inf")), 0)
    lowest = tl.min(tl.where(there[:, None], u, float("inf")), 0)
    shift = tl.where(small_D | (highest < lowest), 0.0, highest)
    spread = tl.where(small_D, tl.where(tl.maximum(highest, -lowest) <= SMALL, 0.0, 2 * FAR), highest - lowest)
    most = tl.max(tl.where(inside[:, None], shift[None, :] - rho, -float("inf")), 0)
    far_rho = tl.max(tl.where(inside[:, None], tl.abs(rho), 0.0), 0)
    most = tl.where(small_D, tl.where(far_rho <= SMALL_RHO, 0.0, 2 * FAR), most)
    return tl.max(tl.maximum(spread, most), 0) <= FAR, shift


@triton.jit
def score_gradient(
    s,
    seen,
    key_there,
    inside,
    value,
    u,
    g_mu,
    z,
    rho,
    lse,
    d_mu,
    d_free,
    small_D,
    N: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
    D: tl.constexpr,
    WITH_VALUES: tl.constexpr,
):
    """(p, ∂logit, x `[N, D]`) of a tile. `z` is z e^{−ρ} in the bounded variant. x only WITH_VALUES."""
    p = tl.where(seen, tl.exp(s - lse[:, None]), 0.0)
    centred = tl.dot(g_mu, tl.trans(value), input_precision=PRECISION) - d_mu[:, None]
    x = tl.zeros([N, D], tl.float32)
    if EXACT:
        g = p * centred
        fits, shift = factors(u, rho, key_there, inside, small_D)
        if fits:
            e = (z * tl.exp(tl.minimum(shift[None, :] - rho, FAR))).to(value.dtype)
            shifted = tl.exp(tl.minimum(u - shift[None, :], FAR))
            w = tl.where(small_D[None, :], expm1(u), shifted).to(value.dtype)
            g += p * (tl.dot(e, tl.trans(w), input_precision=PRECISION) - d_free[:, None])
            if WITH_VALUES:
                x = tl.dot(tl.trans(p.to(value.dtype)), e, input_precision=PRECISION) * shifted
        else:
            for n in range(N):
                centred_q, q = posterior(column(s, n, N) - lse, row(u, n, N)[None, :] - rho)
                g += tl.where((tl.arange(0, N) == n)[None, :], tl.sum(z * centred_q, 1)[:, None], 0.0)
                if WITH_VALUES:
                    seen_n = column(seen.to(tl.float32), n, N)
                    x += tl.where((tl.arange(0, N) == n)[:, None], tl.sum(z * q * seen_n[:, None], 0)[None, :], 0.0)
    else:
        w = carried(u, small_D).to(value.dtype)
        g = p * (tl.dot(z.to(value.dtype), tl.trans(w), centred, input_precision=PRECISION) - d_free[:, None])
        if WITH_VALUES:  # exp(u) multiplies the sum once, after all rows
            x = tl.dot(tl.trans(p.to(value.dtype)), z.to(value.dtype), input_precision=PRECISION)
    return p, tl.where(seen, g, 0.0), x


@triton.jit
def queries_kernel(
    q,
    k,
    v,
    beta,
    mask,
    first,
    g_mu,
    z,
    rho,
    lse,
    d_mu,
    d_free,
    g_q,
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
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * M
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    exact_from = tl.load(first + tl.program_id(1))
    stop = tl.minimum(start + M, rows)
    if EXACT:
        if stop <= exact_from:
            return
    elif stop > exact_from:
        return
    here, channels = start + tl.arange(0, M), tl.arange(0, D)
    inside = here < rows
    beta_D = tl.load(beta + h * VALUE + channels, mask=channels < VALUE, other=1.0)
    of_rows, of_keys = b * rows * heads + h, b * tokens * heads + h
    query = tile(q + of_rows * KEY, here, heads * KEY, rows, KEY, K)
    g_mu_MD = tile(g_mu + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
    z_MD = tile(z + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
    rho_MD = tile(rho + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
    at = of_rows + here * heads
    lse_M, d_mu_M, d_free_M = (
        tl.load(lse + at, mask=inside, other=0.0),
        tl.load(d_mu + at, mask=inside, other=0.0),
        tl.load(d_free + at, mask=inside, other=0.0),
    )
    total = tl.zeros([M, K], tl.float32)
    for begin in tl.range(0, stop if CAUSAL else tokens, N, disable_licm=True):
        keys = begin + tl.arange(0, N)
        there = keys < tokens
        if MASKED:
            there = there & (tl.load(mask + b * tokens + keys, mask=there, other=0) != 0)
        key = tile(k + of_keys * KEY, keys, heads * KEY, tokens, KEY, K)
        value = tl.where(there[:, None], tile(v + of_keys * VALUE, keys, heads * VALUE, tokens, VALUE, D), 0.0)
        u = value.to(tl.float32) * beta_D[None, :]
        seen = there[None, :] & inside[:, None]
        if CAUSAL:
            seen = seen & (keys[None, :] <= here[:, None])
        s = tl.where(seen, tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale, HIDDEN)
        _, g, _ = score_gradient(
            s,
            seen,
            there,
            inside,
            value,
            u,
            g_mu_MD,
            z_MD,
            rho_MD,
            lse_M,
            d_mu_M,
            d_free_M,
            beta_D < 0.5,
            N,
            EXACT,
            PRECISION,
            D,
            False,
        )
        total = tl.dot(g.to(key.dtype), key, total, input_precision=PRECISION)
    store_tile(g_q + of_rows * KEY, here, heads * KEY, rows, total * scale, KEY, K)


@triton.jit
def keys_kernel(
    q,
    k,
    v,
    beta,
    mask,
    first,
    g_mu,
    z,
    rho,
    lse,
    d_mu,
    d_free,
    g_k,
    g_v,
    g_beta,
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
    """Adds to g_k, g_v, and to g_beta `[B, blocks of keys, H, d]`: both variants may have rows that see these keys."""
    begin = tl.program_id(0) * N
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    exact_from = tl.load(first + tl.program_id(1))
    change = tl.where(exact_from >= rows, rows, exact_from // M * M)  # from this row on, blocks are exact
    reached = begin // M * M if CAUSAL else 0
    if EXACT:
        lowest, highest = tl.maximum(reached, change), rows
    else:
        lowest, highest = reached, tl.minimum(change, rows)
    if lowest >= highest:
        return
    keys, channels = begin + tl.arange(0, N), tl.arange(0, D)
    there = keys < tokens
    if MASKED:
        there = there & (tl.load(mask + b * tokens + keys, mask=there, other=0) != 0)
    of_rows, of_keys = b * rows * heads + h, b * tokens * heads + h
    beta_D = tl.load(beta + h * VALUE + channels, mask=channels < VALUE, other=1.0)
    key = tile(k + of_keys * KEY, keys, heads * KEY, tokens, KEY, K)
    value = tl.where(there[:, None], tile(v + of_keys * VALUE, keys, heads * VALUE, tokens, VALUE, D), 0.0)
    u = value.to(tl.float32) * beta_D[None, :]
    to_key, to_mean, to_u = tl.zeros([N, K], tl.float32), tl.zeros([N, D], tl.float32), tl.zeros([N, D], tl.float32)
    for start in tl.range(lowest, highest, M, disable_licm=True):
        here = start + tl.arange(0, M)
        inside = here < rows
        at = of_rows + here * heads
        query = tile(q + of_rows * KEY, here, heads * KEY, rows, KEY, K)
        g_mu_MD = tile(g_mu + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
        z_MD = tile(z + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
        rho_MD = tile(rho + of_rows * VALUE, here, heads * VALUE, rows, VALUE, D)
        lse_M, d_mu_M, d_free_M = (
            tl.load(lse + at, mask=inside, other=0.0),
            tl.load(d_mu + at, mask=inside, other=0.0),
            tl.load(d_free + at, mask=inside, other=0.0),
        )
        seen = there[None, :] & inside[:, None]
        if CAUSAL:
            seen = seen & (keys[None, :] <= here[:, None])
        s = tl.where(seen, tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale, HIDDEN)
        p, g, x = score_gradient(
            s,
            seen,
            there,
            inside,
            value,
            u,
            g_mu_MD,
            z_MD,
            rho_MD,
            lse_M,
            d_mu_M,
            d_free_M,
            beta_D < 0.5,
            N,
            EXACT,
            PRECISION,
            D,
            True,
        )
        to_mean = tl.dot(tl.trans(p.to(value.dtype)), g_mu_MD, to_mean, input_precision=PRECISION)
        to_key = tl.dot(tl.trans(g.to(key.dtype)), query, to_key, input_precision=PRECISION)
        to_u += x
    if not EXACT:  # a value out of range is seen by none of these rows: its sum is zero, its exponential must be finite
        to_u = to_u * tl.exp(tl.minimum(u, FAR))
    to_v = to_mean + beta_D[None, :] * to_u
    to_key = to_key * scale
    at_beta = g_beta + ((b * tl.num_programs(0) + tl.program_id(0)) * heads + h) * VALUE + channels
    to_beta = tl.sum(value.to(tl.float32) * to_u, 0)
    if EXACT and lowest > reached:  # the part of the bounded rows is already there
        to_key += tile(g_k + of_keys * KEY, keys, heads * KEY, tokens, KEY, K).to(tl.float32)
        to_v += tile(g_v + of_keys * VALUE, keys, heads * VALUE, tokens, VALUE, D).to(tl.float32)
        to_beta += tl.load(at_beta, mask=channels < VALUE, other=0.0)
    store_tile(g_k + of_keys * KEY, keys, heads * KEY, tokens, to_key, KEY, K)
    store_tile(g_v + of_keys * VALUE, keys, heads * VALUE, tokens, to_v, VALUE, D)
    tl.store(at_beta, to_beta, mask=channels < VALUE)


def gradients(
    shared: dict[str, Any], grad_mu: Tensor, grad_free: Tensor, mu: Tensor, rho: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v and β. `shared`: the arguments that forward has too."""
    q, k, v, beta = (shared[name] for name in ("q", "k", "v", "beta"))
    grad_mu, small = grad_mu.contiguous(), beta < SMALL_BETA
    z = (grad_free.float() / beta).contiguous()
    d_mu = (grad_mu.float() * mu.float()).sum(-1)
    d_free = torch.where(small, -z * torch.expm1(-rho.clamp(-2 * SMALL_RANGE, 2 * SMALL_RANGE)), z).sum(-1)
    bounded_z = z * torch.exp(-rho.clamp(-RANGE, RANGE))
    g_q, g_k, g_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    batch_heads = q.shape[0] * q.shape[2]
    g_beta = beta.new_empty(q.shape[0], blocks(k.shape[1], keys_config(v.dtype, False)["N"]), *beta.shape)
    for exact in (False, True):
        given = dict(
            shared, g_mu=grad_mu, z=z if exact else bounded_z, rho=rho, lse=lse, d_mu=d_mu, d_free=d_free, EXACT=exact
        )
        config = queries_config(v.dtype, exact)
        launch(queries_kernel, (blocks(q.shape[1], config["M"]), batch_heads), config, **given, g_q=g_q)
        launch(
            keys_kernel,
            (g_beta.shape[1], batch_heads),
            keys_config(v.dtype, exact),
            **given,
            g_k=g_k,
            g_v=g_v,
            g_beta=g_beta,
        )
    to_beta = g_beta.sum((0, 1)) - (z * (rho / beta)).sum((0, 1))
    return g_q, g_k, g_v, to_beta


def queries_config(dtype: torch.dtype, exact: bool) -> Config:
    """Small tiles: the operands of five products and three sums are live at once. Found by compiling: no spills."""
    if target() == "gfx942":
        return Config.of(warps=4, stages=1, M=16, N=16) if exact else Config.of(warps=4, stages=1, M=32, N=32)
    return Config.of(warps=8 if exact or dtype == torch.float32 else 4, stages=1, M=32, N=32)


def keys_config(dtype: torch.dtype, exact: bool) -> Config:
    """Blocks of keys have one size in both variants, since the results add up."""
    if target() == "gfx942":
        return Config.of(warps=4, stages=1, M=16, N=16)
    if dtype == torch.float32 or target() == "sm_100":
        return Config.of(warps=8 if exact and dtype == torch.float32 else 4, stages=1, M=16, N=16)
    return Config.of(warps=8 if exact else 4, stages=1, M=32, N=32)
