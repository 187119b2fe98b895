"""Gradients of the delta rule. With g the gradient of o, u = β error, and ∂S of the memory after a chunk, from the end:

    ∂u = (q·k ⊙ D)ᵀ g + e^{G_C − G} k ∂S,     ∂v = Aᵀ (β ∂u)
    ∂S ← e^{G_C} ∂S + (e^G q)ᵀ g − Kᵀ (β ∂u)

∂u is the gradient of a correction as if the later errors of its chunk did not depend on it; ∂v includes these. The
other gradients need S before and ∂S after each chunk. With P = g·u ⊙ D and Z = ∂v·error, both lower triangular:

    ∂q = e^G g Sᵀ + P k,     ∂k = e^{G_C − G} u ∂Sᵀ + Pᵀ q − e^G ∂v Sᵀ − (Z' + Z'ᵀ) k,     Z' = Z ⊙ D diag β, i < t
    ∂β = ∂u·error − Σ_{t>i} Z_ti Y_ti
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.delta_chunk import decayed, rates_of, summed
from kernels.gpu.shared.tiles import store_window, window


@triton.jit
def adjoint_kernel(
    q,
    k,
    beta,
    log_decay,
    keys,
    g,
    direct,
    to_u,
    adjoints,
    tokens,
    heads,
    width,
    chunks,
    KEY: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """direct: the first part of ∂u; adjoints `[B, H, chunks, k, w]`: ∂S after each chunk."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    mine, wide = tl.program_id(0) * W + tl.arange(0, W), tl.arange(0, K)
    place = adjoints + (tl.program_id(1).to(tl.int64) * chunks + chunks) * KEY * width
    memory = tl.zeros([K, W], tl.float32)
    for i in tl.range(chunks, disable_licm=True):
        here = (chunks - 1 - i) * C + tl.arange(0, C)
        place -= KEY * width
        store_window(place, wide, width, KEY, mine, width, memory)
        total, end = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
        key = window(k + of_tokens * KEY, here, heads * KEY, tokens, wide, KEY) * decayed(end - total)[:, None]
        correction = tl.dot(key, memory, input_precision=PRECISION)
        correction += window(direct + of_tokens * width, here, heads * width, tokens, mine, width)
        store_window(to_u + of_tokens * width, here, heads * width, tokens, mine, width, correction)
        query = window(q + of_tokens * KEY, here, heads * KEY, tokens, wide, KEY) * decayed(total)[:, None]
        grad = window(g + of_tokens * width, here, heads * width, tokens, mine, width)
        memory = tl.dot(tl.trans(query), grad, memory * decayed(end), input_precision=PRECISION)
        correction *= -rates_of(beta, of_tokens, here, heads, tokens)[:, None]
        key = window(keys + of_tokens * KEY, here, heads * KEY, tokens, wide, KEY)
        memory = tl.dot(tl.trans(key), correction, memory, input_precision=PRECISION)


@triton.jit
def queries_kernel(
    k,
    beta,
    log_decay,
    states,
    pull,
    g,
    g_q,
    tokens,
    heads,
    width,
    chunks,
    KEY: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """pull `[B, T, H, C]`: P above. W key channels of one chunk."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, mine = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(2) * W + tl.arange(0, W)
    place = states + (tl.program_id(1).to(tl.int64) * chunks + tl.program_id(0)) * KEY * width
    to_query = tl.zeros([C, W], tl.float32)
    for begin in tl.range(0, width, W, disable_licm=True):
        columns = begin + tl.arange(0, W)
        grad = window(g + of_tokens * width, here, heads * width, tokens, columns, width)
        memory = window(place, mine, width, KEY, columns, width)
        to_query = tl.dot(grad, tl.trans(memory), to_query, input_precision=PRECISION)
    total, _ = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
    to_query *= decayed(total)[:, None]
    key = window(k + of_tokens * KEY, here, heads * KEY, tokens, mine, KEY)
    weights = window(pull + of_tokens * C, here, heads * C, tokens, tl.arange(0, C), C)
    to_query = tl.dot(weights, key, to_query, input_precision=PRECISION)
    store_window(g_q + of_tokens * KEY, here, heads * KEY, tokens, mine, KEY, to_query)


@triton.jit
def keys_kernel(
    q,
    k,
    beta,
    log_decay,
    errors,
    states,
    adjoints,
    pull,
    corrections,
    g_v,
    g_k,
    tokens,
    heads,
    width,
    chunks,
    KEY: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """pull, corrections `[B, T, H, C]`: P and Z above. W key channels of one chunk."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, mine = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(2) * W + tl.arange(0, W)
    order = tl.arange(0, C)
    place = (tl.program_id(1).to(tl.int64) * chunks + tl.program_id(0)) * KEY * width
    rates = rates_of(beta, of_tokens, here, heads, tokens)
    total, end = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
    since, until = decayed(total)[:, None], (rates * decayed(end - total))[:, None]
    to_key = tl.zeros([C, W], tl.float32)
    for begin in tl.range(0, width, W, disable_licm=True):
        columns = begin + tl.arange(0, W)
        to_value = window(g_v + of_tokens * width, here, heads * width, tokens, columns, width) * -since
        memory = window(states + place, mine, width, KEY, columns, width)
        to_key = tl.dot(to_value, tl.trans(memory), to_key, input_precision=PRECISION)
        u = window(errors + of_tokens * width, here, heads * width, tokens, columns, width) * until
        memory = window(adjoints + place, mine, width, KEY, columns, width)
        to_key = tl.dot(u, tl.trans(memory), to_key, input_precision=PRECISION)
    query = window(q + of_tokens * KEY, here, heads * KEY, tokens, mine, KEY)
    weights = window(pull + of_tokens * C, here, heads * C, tokens, order, C)
    to_key = tl.dot(tl.trans(weights), query, to_key, input_precision=PRECISION)
    weights = window(corrections + of_tokens * C, here, heads * C, tokens, order, C)
    weights *= decayed(total[:, None] - total[None, :]) * -rates[None, :]
    weights = tl.where(order[:, None] > order[None, :], weights, 0.0)
    key = window(k + of_tokens * KEY, here, heads * KEY, tokens, mine, KEY)
    to_key = tl.dot(weights + tl.trans(weights), key, to_key, input_precision=PRECISION)
    store_window(g_k + of_tokens * KEY, here, heads * KEY, tokens, mine, KEY, to_key)


@triton.jit
def rates_kernel(errors, to_u, weights, corrections, g_beta, tokens, heads, width, W: tl.constexpr, C: tl.constexpr):
    """∂β of one chunk; weights and corrections `[B, T, H, C]`: Y and Z above."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, order = tl.program_id(0) * C + tl.arange(0, C), tl.arange(0, C)
    pairs = window(corrections + of_tokens * C, here, heads * C, tokens, order, C)
    pairs *= window(weights + of_tokens * C, here, heads * C, tokens, order, C)
    to_rate = -tl.sum(tl.where(order[:, None] > order[None, :], pairs, 0.0), 0)
    for begin in tl.range(0, width, W, disable_licm=True):
        columns = begin + tl.arange(0, W)
        error = window(errors + of_tokens * width, here, heads * width, tokens, columns, width)
        to_rate += tl.sum(error * window(to_u + of_tokens * width, here, heads * width, tokens, columns, width), 1)
    tl.store(g_beta + of_tokens + here * heads, to_rate.to(g_beta.dtype.element_ty), mask=here < tokens)
