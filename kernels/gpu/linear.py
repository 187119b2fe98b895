"""Causal sums of linear attention (arguments: `kernels.linear.sums`): chunks with a running state, products on tensor
cores.

A program holds the `[k, W]` state of W value channels of one head and processes the chunks in order; gradients of
queries and keys come in parts, one per program. On AMD chunks are up to 64 tokens long without decays or with one per
head; elsewhere, and with one decay per channel, 16. With one decay per channel the scores within a chunk are computed
key by key: every exponent is ≤ 0, none is clipped. Decays are summed within a chunk, in fp64.

Backward has two passes: forward with the state again (for ∂q), and from the end with the gradient of the state (for ∂k
and ∂v).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.shared.launch import Config, blocks, contiguous, dot_precision, launch, padded, split, target
from kernels.gpu.shared.tiles import column, row, store_tile, tile
from kernels.numerics.first_derivative import first_derivative_only

NONE, HEAD, CHANNEL = 0, 1, 2  # what each decay belongs to
A_HEAD, A_CHANNEL = tl.constexpr(HEAD), tl.constexpr(CHANNEL)
WIDEST = 128  # key channels per head
PIECE = 32  # key channels per head on NVIDIA; wider heads are computed as several heads, whose sums add up


@triton.jit
def chunk_decays(
    log_decay, begin, of_tokens, heads, tokens, KEY: tl.constexpr, K: tl.constexpr, C: tl.constexpr, KIND: tl.constexpr
):
    """Log-decays summed from the start of the chunk, `[C, K]` or `[C, 1]`, in fp64; and three decay factors.

    The factors: from the start to each token, from each token to the end, and of the whole chunk.
    """
    if KIND == A_CHANNEL:
        steps = tile(log_decay + of_tokens * KEY, begin + tl.arange(0, C), heads * KEY, tokens, KEY, K)
    else:
        steps = tile(log_decay + of_tokens, begin + tl.arange(0, C), heads, tokens, 1, 1)
    total = tl.cumsum(steps.to(tl.float64), 0)
    end = row(total, C - 1, C)
    since, until = tl.exp(total.to(tl.float32)), tl.exp((end[None, :] - total).to(tl.float32))
    return total, since, until, tl.exp(end.to(tl.float32))


@triton.jit
def weigh(scores, total, C: tl.constexpr, KIND: tl.constexpr):
    """Scores times e^{G_t − G_i}, if there is one decay per head; zero at i > t."""
    order = tl.arange(0, C)
    if KIND == A_HEAD:
        flat = tl.sum(total, 1)
        scores = scores * tl.exp(tl.minimum(flat[:, None] - flat[None, :], 0.0).to(tl.float32))
    return tl.where(order[:, None] >= order[None, :], scores, 0.0)


@triton.jit
def gap_to(total, n, C: tl.constexpr):
    """e^{G_t − G_n} `[C, K]`, zero at t < n."""
    gap = tl.exp(tl.minimum(total - row(total, n, C)[None, :], 0.0).to(tl.float32))
    return tl.where((tl.arange(0, C) >= n)[:, None], gap, 0.0)


@triton.jit
def scores_of(query, key, total, C: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr):
    if KIND == A_CHANNEL:
        scores = tl.zeros([C, C], tl.float32)
        for n in range(C):
            one = tl.sum(query * gap_to(total, n, C) * row(key, n, C)[None, :], 1)
            scores += tl.where((tl.arange(0, C) == n)[None, :], one[:, None], 0.0)
        return scores
    return weigh(tl.dot(query, tl.trans(key), input_precision=PRECISION), total, C, KIND)


@triton.jit
def forward_kernel(
    q,
    k,
    v,
    log_decay,
    out,
    tokens,
    heads,
    width,
    KEY: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    KIND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    of_tokens = b * tokens * heads + h
    mine = tl.program_id(0) * W + tl.arange(0, W)
    state = tl.zeros([K, W], tl.float32)
    for begin in tl.range(0, tokens, C, disable_licm=True):
        here = begin + tl.arange(0, C)
        query = tile(q + of_tokens * KEY, here, heads * KEY, tokens, KEY, K)
        key = tile(k + of_tokens * KEY, here, heads * KEY, tokens, KEY, K)
        inside = (here < tokens)[:, None] & (mine < width)[None, :]
        at = of_tokens * width + here[:, None] * (heads * width) + mine[None, :]
        value = tl.load(v + at, mask=inside, other=0.0)
        if KIND == 0:
            scores = scores_of(query, key, 0.0, C, KIND, PRECISION)
        else:
            total, since, until, whole = chunk_decays(log_decay, begin, of_tokens, heads, tokens, KEY, K, C, KIND)
            scores = scores_of(query, key, total, C, KIND, PRECISION)
            query, key = query * since, key * until
        result = tl.dot(scores, value, tl.dot(query, state, input_precision=PRECISION), input_precision=PRECISION)
        if KIND != 0:
            state = state * whole[:, None]
        state = tl.dot(tl.trans(key), value, state, input_precision=PRECISION)
        tl.store(out + at, result, mask=inside)


@triton.jit
def queries_kernel(
    q,
    k,
    v,
    log_decay,
    g,
    g_q,
    tokens,
    heads,
    width,
    KEY: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    KIND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """g_q `[blocks of channels, B, T, H, k]`."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    of_tokens = b * tokens * heads + h
    part = tl.program_id(0) * (tl.num_programs(1) // heads).to(tl.int64) * tokens * heads + of_tokens
    mine = tl.program_id(0) * W + tl.arange(0, W)
    state = tl.zeros([K, W], tl.float32)
    for begin in tl.range(0, tokens, C, disable_licm=True):
        here = begin + tl.arange(0, C)
        key = tile(k + of_tokens * KEY, here, heads * KEY, tokens, KEY, K)
        inside = (here < tokens)[:, None] & (mine < width)[None, :]
        at = of_tokens * width + here[:, None] * (heads * width) + mine[None, :]
        value, grad = tl.load(v + at, mask=inside, other=0.0), tl.load(g + at, mask=inside, other=0.0)
        pairs = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
        result = tl.dot(grad, tl.trans(state), input_precision=PRECISION)
        if KIND == 0:
            result = tl.dot(weigh(pairs, 0.0, C, KIND), key, result, input_precision=PRECISION)
            state = tl.dot(tl.trans(key), value, state, input_precision=PRECISION)
        else:
            total, since, until, whole = chunk_decays(log_decay, begin, of_tokens, heads, tokens, KEY, K, C, KIND)
            result = result * since
            if KIND == A_HEAD:
                result = tl.dot(weigh(pairs, total, C, KIND), key, result, input_precision=PRECISION)
            else:
                for n in range(C):
                    result += column(pairs, n, C)[:, None] * gap_to(total, n, C) * row(key, n, C)[None, :]
            state = tl.dot(tl.trans(key * until), value, state * whole[:, None], input_precision=PRECISION)
        store_tile(g_q + part * KEY, here, heads * KEY, tokens, result, KEY, K)


@triton.jit
def keys_kernel(
    q,
    k,
    v,
    log_decay,
    g,
    g_k,
    g_v,
    tokens,
    heads,
    width,
    KEY: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    KIND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """From the end. `state` is the gradient of the state after the chunk; g_k `[blocks of channels, B, T, H, k]`."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    of_tokens = b * tokens * heads + h
    part = tl.program_id(0) * (tl.num_programs(1) // heads).to(tl.int64) * tokens * heads + of_tokens
    mine = tl.program_id(0) * W + tl.arange(0, W)
    state = tl.zeros([K, W], tl.float32)
    chunks = tl.cdiv(tokens, C)
    for i in tl.range(chunks, disable_licm=True):
        begin = (chunks - 1 - i) * C
        here = begin + tl.arange(0, C)
        query = tile(q + of_tokens * KEY, here, heads * KEY, tokens, KEY, K)
        key = tile(k + of_tokens * KEY, here, heads * KEY, tokens, KEY, K)
        inside = (here < tokens)[:, None] & (mine < width)[None, :]
        at = of_tokens * width + here[:, None] * (heads * width) + mine[None, :]
        value, grad = tl.load(v + at, mask=inside, other=0.0), tl.load(g + at, mask=inside, other=0.0)
        pairs = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
        to_key = tl.dot(value, tl.trans(state), input_precision=PRECISION)
        if KIND == 0:
            scores = scores_of(query, key, 0.0, C, KIND, PRECISION)
            to_value = tl.dot(key, state, input_precision=PRECISION)
            to_key = tl.dot(tl.trans(weigh(pairs, 0.0, C, KIND)), query, to_key, input_precision=PRECISION)
            state = tl.dot(tl.trans(query), grad, state, input_precision=PRECISION)
        else:
            total, since, until, whole = chunk_decays(log_decay, begin, of_tokens, heads, tokens, KEY, K, C, KIND)
            scores = scores_of(query, key, total, C, KIND, PRECISION)
            to_value = tl.dot(key * until, state, input_precision=PRECISION)
            to_key = to_key * until
            if KIND == A_HEAD:
                to_key = tl.dot(tl.trans(weigh(pairs, total, C, KIND)), query, to_key, input_precision=PRECISION)
            else:
                for n in range(C):
                    one = tl.sum(column(pairs, n, C)[:, None] * gap_to(total, n, C) * query, 0)
                    to_key += tl.where((tl.arange(0, C) == n)[:, None], one[None, :], 0.0)
            state = tl.dot(tl.trans(query * since), grad, state * whole[:, None], input_precision=PRECISION)
        to_value = tl.dot(tl.trans(scores), grad, to_value, input_precision=PRECISION)
        tl.store(g_v + at, to_value, mask=inside)
        store_tile(g_k + part * KEY, here, heads * KEY, tokens, to_key, KEY, K)


def refusal(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTHc: Tensor | None = None) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if v_BTHw.dtype != torch.float32:
        return f"it takes float32, not {str(v_BTHw.dtype).removeprefix('torch.')}"
    if q_BTHk.shape[-1] > WIDEST:
        return f"it takes heads up to {WIDEST} key channels, not {q_BTHk.shape[-1]}"
    return None


def decayed_sums(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTHc: Tensor | None = None) -> Tensor:
    """out, as `kernels.linear.sums.decayed_sums`."""
    pieces = 1 if target() == "gfx942" else blocks(q_BTHk.shape[-1], PIECE)
    q, k, decay, v = split(q_BTHk, pieces), split(k_BTHk, pieces), log_decay_BTHc, v_BTHw
    if pieces > 1:
        v = v.repeat_interleave(pieces, 2)
        if decay is not None:
            decay = decay.repeat_interleave(pieces, 2) if decay.shape[-1] == 1 else split(decay, pieces)
    out: Tensor = _DecayedSums.apply(q, k, v, decay)
    return out.unflatten(2, (-1, pieces)).sum(3) if pieces > 1 else out


class _DecayedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None) -> Tensor:
        q, k, v = contiguous(q, k, v)
        log_decay = None if log_decay is None else log_decay.contiguous()
        out, (shared, grid, config) = torch.empty_like(v), _common(q, k, v, log_decay)
        launch(forward_kernel, grid, config, **shared, out=out)
        ctx.save_for_backward(q, k, v, log_decay)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_decay = ctx.saved_tensors
        shared, grid, config = _common(q, k, v, log_decay)
        shared["g"] = grad.contiguous()
        g_q, g_k = q.new_empty(grid[0], *q.shape), k.new_empty(grid[0], *k.shape)
        g_v = torch.empty_like(v)
        launch(queries_kernel, grid, config, **shared, g_q=g_q)
        launch(keys_kernel, grid, config, **shared, g_k=g_k, g_v=g_v)
        grad_q, grad_k = g_q.sum(0), g_k.sum(0)
        if log_decay is None:
            return grad_q, grad_k, g_v, None
        return grad_q, grad_k, g_v, decay_gradient(q.double() * grad_q - k.double() * grad_k, log_decay)


def decay_gradient(by_token_BTHk: Tensor, log_decay: Tensor) -> Tensor:
    """From the gradient of the summed decays at each token to that of the decays, which all later sums contain."""
    if log_decay.shape[-1] == 1:
        by_token_BTHk = by_token_BTHk.sum(-1, keepdim=True)
    return by_token_BTHk.flip(1).cumsum(1).flip(1).to(log_decay.dtype)


def _common(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None
) -> tuple[dict[str, Any], tuple[int, int], Config]:
    """The arguments of all kernels of this module, their grid and tiles."""
    kind = NONE if log_decay is None else HEAD if log_decay.shape[-1] == 1 else CHANNEL
    K = padded(q.shape[-1])
    config = _config(kind, K)
    shared = {
        "q": q,
        "k": k,
        "v": v,
        "log_decay": log_decay,
        "tokens": v.shape[1],
        "heads": v.shape[2],
        "width": v.shape[3],
        "KEY": q.shape[-1],
        "K": K,
        "KIND": kind,
        "PRECISION": dot_precision(v.dtype),
    }
    return shared, (blocks(v.shape[3], config["W"]), v.shape[0] * v.shape[2]), config


def _config(kind: int, K: int) -> Config:
    """Found by compiling ahead of time: no spills. On NVIDIA fp32 products need three times the registers."""
    chunk = 16 if kind == CHANNEL or target() != "gfx942" else 64 if K <= 64 else 32
    return Config.of(warps=4, stages=1, C=chunk, W=32)
