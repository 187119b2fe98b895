"""Gradients of lag mixing in blocks of rows: one pass that computes the scores of each block again."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.hyper_block import (
    add_tile,
    by_key,
    by_lag,
    mixed,
    mixed_scores,
    narrow_scores,
    softplus,
    write_products,
)
from kernels.gpu.shared.tiles import store_tile, tile


@triton.jit
def save(place, values, R: tl.constexpr, P: tl.constexpr):
    """`[R, P]` to memory that only this program uses. What each loop needs is there, not in registers."""
    tl.store(place + tl.arange(0, R)[:, None] * P + tl.arange(0, P)[None, :], values)


@triton.jit
def saved(place, R: tl.constexpr, P: tl.constexpr):
    return tl.load(place + tl.arange(0, R)[:, None] * P + tl.arange(0, P)[None, :])


@triton.jit
def gate_and_scale(
    buffer,
    narrow,
    second,
    diagonal,
    lags,
    here,
    T,
    L,
    H,
    RANK: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    SETS: tl.constexpr,
    BEFORE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The mixed scores of the first set and of the last one at these lags; narrow: (y·first) ⊙ control, in memory."""
    low = 0.0
    if BEFORE:
        low = saved(narrow, R, P)
    _, gate = mixed_scores(buffer, 0, low, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION)
    if SETS == 1:
        return gate, gate
    if BEFORE:
        low = saved(narrow + 2 * R * P, R, P)
    _, scale = mixed_scores(
        buffer + R * T, 1, low, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
    )
    return gate, scale


@triton.jit
def activated(gate, scale, SETS: tl.constexpr):
    """ReLU of the scores, or of the first set's times softplus of the second's."""
    active = tl.maximum(gate, 0.0)
    if SETS == 2:
        active *= softplus(scale)
    return active


@triton.jit
def mixing_adjoint(
    g,
    y,
    down,
    narrow,
    first,
    second,
    diagonal,
    g_tables,
    lags,
    seen,
    L,
    RANK: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """From the gradient g of the output of a mixing at these lags to that of its input y; adds to the tables' own.

    narrow, down: (y·first) ⊙ control and (g·second) ⊙ control `[R, P]`, in memory.
    """
    to_table = tl.dot(tl.trans(g), saved(narrow, R, P), input_precision=PRECISION)
    add_tile(g_tables + L * RANK, lags, RANK, L, to_table, RANK, P)
    to_table = tl.dot(tl.trans(y), saved(down, R, P), input_precision=PRECISION)
    add_tile(g_tables, lags, RANK, L, to_table, RANK, P)
    inside = lags < L
    to_diagonal = g_tables + 2 * L * RANK + lags
    tl.store(to_diagonal, tl.load(to_diagonal, mask=inside, other=0.0) + tl.sum(g * y, 0), mask=inside)
    scale = 1.0 + tl.load(diagonal + lags, mask=inside, other=0.0)
    table = tile(first, lags, RANK, L, RANK, P)
    wide = tl.dot(saved(down, R, P), tl.trans(table), input_precision=PRECISION)
    return tl.where(seen, g * scale[None, :] + wide, 0.0)


@triton.jit
def backward_kernel(
    q,
    k,
    v,
    first,
    second,
    diagonal,
    control,
    raw,
    pull,
    scratch,
    narrows,
    g_q,
    g_k,
    g_v,
    g_tables,
    g_control,
    B,
    H,
    T,
    L,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    RANK: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    P: tl.constexpr,
    MIXINGS: tl.constexpr,
    SETS: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """raw: gradient of the read without its norm. The gradient of the norm is −pull times the gate, for each row.

    The scratch memory has, for each set, plain scores and gradients; the weights are where the gradient of the second
    set comes later. narrows `[programs, MIXINGS, 2, R, P]`: (y·first) ⊙ control, (g·second) ⊙ control of each mixing.
    g_k, g_v and g_tables have one part per program; g_tables has first, second and diagonal of each mixing in turn.
    What one loop needs is read from memory, not held over the others: registers do not suffice for that.
    """
    hb = tl.program_id(1).to(tl.int64)
    h, all_hb = hb // B, tl.num_programs(1)
    program = hb * tl.num_programs(0) + tl.program_id(0)
    buffer = scratch + program * (SETS + 2) * R * T
    grads, weights = buffer + SETS * R * T, buffer + (SETS + 1) * R * T
    of_mixing = L * (2 * RANK + 1)
    g_tables += program * MIXINGS * of_mixing
    g_k, g_v = g_k + program * SETS * T * KEY, g_v + program * T * VALUE
    first, second, diagonal = first + h * L * RANK, second + h * L * RANK, diagonal + h * L
    control, g_control = control + hb * T * RANK, g_control + hb * T * RANK
    v, raw = v + hb * T * VALUE, raw + hb * T * VALUE
    last: tl.constexpr = SETS if BEFORE else 0
    of_last, one_table = last * H * L * RANK, L * RANK
    narrow0 = narrows + program * MIXINGS * 2 * R * P
    narrow2 = narrow0 + last * 2 * R * P
    down0, down2 = narrow0 + R * P, narrow2 + R * P
    for block in tl.range(tl.program_id(0), tl.cdiv(T, R), tl.num_programs(0), disable_licm=True):
        start = block * R
        here = start + tl.arange(0, R)
        stop = tl.minimum(start + R, T)
        for s in tl.range(SETS, disable_licm=True):
            of_set = (s * all_hb + hb) * T * KEY
            write_products(
                buffer + s * R * T,
                tile(q + of_set, here, KEY, T, KEY, K),
                k + of_set,
                here,
                0,
                stop,
                T,
                KEY,
                K,
                R,
                N,
                PRECISION,
            )
        raw_RD = tile(raw, here, VALUE, T, VALUE, D)
        write_products(grads, raw_RD, v, here, 0, stop, T, VALUE, D, R, N, PRECISION)
        tl.debug_barrier()
        if BEFORE:
            for s in tl.range(SETS, disable_licm=True):
                of_set = s * all_hb * T * RANK
                low = narrow_scores(buffer + s * R * T, s, first, here, stop, T, L, H, RANK, P, R, N, PRECISION)
                save(narrow0 + s * 2 * R * P, low * tile(control + of_set, here, RANK, T, RANK, P), R, P)
                store_tile(g_control + of_set, here, RANK, T, low, RANK, P)  # multiplied by up later
            tl.debug_barrier()
        if AFTER:
            low, up = tl.zeros([R, P], tl.float32), tl.zeros([R, P], tl.float32)
            for begin in tl.range(0, stop, N, disable_licm=True):
                lags = begin + tl.arange(0, N)
                at, seen = by_lag(grads, lags, here, T, R)
                gate, scale = gate_and_scale(
                    buffer, narrow0, second, diagonal, lags, here, T, L, H, RANK, P, R, SETS, BEFORE, PRECISION
                )
                active = activated(gate, scale, SETS)
                low = tl.dot(active, tile(first + of_last, lags, RANK, L, RANK, P), low, input_precision=PRECISION)
                g = tl.load(at, mask=seen, other=0.0)
                up = tl.dot(g, tile(second + of_last, lags, RANK, L, RANK, P), up, input_precision=PRECISION)
            store_tile(g_control + last * all_hb * T * RANK, here, RANK, T, up * low, RANK, P)
            scale = tile(control + last * all_hb * T * RANK, here, RANK, T, RANK, P)
            save(narrow2, low * scale, R, P)
            save(down2, up * scale, R, P)
            tl.debug_barrier()
        for begin in tl.range(0, stop, N, disable_licm=True):
            lags = begin + tl.arange(0, N)
            at, seen = by_lag(grads, lags, here, T, R)
            to_weights, _ = by_lag(weights, lags, here, T, R)
            gate, scale = gate_and_scale(
                buffer, narrow0, second, diagonal, lags, here, T, L, H, RANK, P, R, SETS, BEFORE, PRECISION
            )
            active = activated(gate, scale, SETS)
            if AFTER:
                active = mixed(
                    active,
                    saved(narrow2, R, P),
                    second + of_last,
                    diagonal + last * H * L,
                    lags,
                    seen,
                    L,
                    RANK,
                    P,
                    PRECISION,
                )
            tl.store(to_weights, active, mask=seen)
        tl.debug_barrier()
        raw_RD = tile(raw, here, VALUE, T, VALUE, D)
        for begin in tl.range(0, stop, N, disable_licm=True):
            keys = begin + tl.arange(0, N)
            at, seen = by_key(weights, keys, here, T, R)
            w = tl.load(at, mask=seen, other=0.0)
            add_tile(g_v, keys, VALUE, T, tl.dot(tl.trans(w), raw_RD, input_precision=PRECISION), VALUE, D)
        tl.debug_barrier()
        if AFTER:
            for begin in tl.range(0, stop, N, disable_licm=True):
                lags = begin + tl.arange(0, N)
                at, seen = by_lag(grads, lags, here, T, R)
                gate, scale = gate_and_scale(
                    buffer, narrow0, second, diagonal, lags, here, T, L, H, RANK, P, R, SETS, BEFORE, PRECISION
                )
                g = mixing_adjoint(
                    tl.load(at, mask=seen, other=0.0),
                    activated(gate, scale, SETS),
                    down2,
                    narrow2,
                    first + of_last,
                    second + of_last,
                    diagonal + last * H * L,
                    g_tables + last * of_mixing,
                    lags,
                    seen,
                    L,
                    RANK,
                    P,
                    R,
                    PRECISION,
                )
                tl.store(at, g, mask=seen)
            tl.debug_barrier()
        pull_R = tl.load(pull + hb * T + here, mask=here < T, other=0.0)
        for begin in tl.range(0, stop, N, disable_licm=True):
            lags = begin + tl.arange(0, N)
            at, seen = by_lag(grads, lags, here, T, R)
            to_scale, _ = by_lag(weights, lags, here, T, R)
            g = tl.load(at, mask=seen, other=0.0)
            gate, scale = gate_and_scale(
                buffer, narrow0, second, diagonal, lags, here, T, L, H, RANK, P, R, SETS, BEFORE, PRECISION
            )
            if SETS == 2:
                g_scale = g * tl.maximum(gate, 0.0) / (1.0 + tl.exp(-tl.maximum(scale, -80.0)))
                tl.store(to_scale, g_scale, mask=seen)
                g *= softplus(scale)
            g = tl.where(gate > 0.0, g, 0.0) - pull_R[:, None] * gate
            tl.store(at, g, mask=seen)
        tl.debug_barrier()
        if BEFORE:
            for s in tl.range(SETS, disable_licm=True):
                of_set = s * all_hb * T * RANK
                up = narrow_scores(grads + s * R * T, s, second, here, stop, T, L, H, RANK, P, R, N, PRECISION)
                low = tile(g_control + of_set, here, RANK, T, RANK, P)
                store_tile(g_control + of_set, here, RANK, T, up * low, RANK, P)
                save(down0 + s * 2 * R * P, up * tile(control + of_set, here, RANK, T, RANK, P), R, P)
                tl.debug_barrier()
                for begin in tl.range(0, stop, N, disable_licm=True):
                    lags = begin + tl.arange(0, N)
                    y, seen = by_lag(buffer + s * R * T, lags, here, T, R)
                    at, _ = by_lag(grads + s * R * T, lags, here, T, R)
                    g = mixing_adjoint(
                        tl.load(at, mask=seen, other=0.0),
                        tl.load(y, mask=seen, other=0.0),
                        down0 + s * 2 * R * P,
                        narrow0 + s * 2 * R * P,
                        first + s * H * one_table,
                        second + s * H * one_table,
                        diagonal + s * H * L,
                        g_tables + s * of_mixing,
                        lags,
                        seen,
                        L,
                        RANK,
                        P,
                        R,
                        PRECISION,
                    )
                    tl.store(at, g, mask=seen)
            tl.debug_barrier()
        for s in tl.range(SETS, disable_licm=True):
            of_set = (s * all_hb + hb) * T * KEY
            query, to_query = tile(q + of_set, here, KEY, T, KEY, K), tl.zeros([R, K], tl.float32)
            for begin in tl.range(0, stop, N, disable_licm=True):
                keys = begin + tl.arange(0, N)
                at, seen = by_key(grads + s * R * T, keys, here, T, R)
                g = tl.load(at, mask=seen, other=0.0)
                to_query = tl.dot(g, tile(k + of_set, keys, KEY, T, KEY, K), to_query, input_precision=PRECISION)
                add_tile(g_k + s * T * KEY, keys, KEY, T, tl.dot(tl.trans(g), query, input_precision=PRECISION), KEY, K)
            store_tile(g_q + of_set, here, KEY, T, to_query, KEY, K)
        tl.debug_barrier()
