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
def mixing_adjoint(
    g,
    y,
    up,
    low_control,
    first,
    second,
    diagonal,
    g_first,
    g_second,
    g_diagonal,
    lags,
    seen,
    control,
    L,
    RANK: tl.constexpr,
    P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """From the gradient g of the output of a mixing at these lags to that of its input y; adds to the tables' own."""
    down = up * control
    add_tile(g_second, lags, RANK, L, tl.dot(tl.trans(g), low_control, input_precision=PRECISION), RANK, P)
    add_tile(g_first, lags, RANK, L, tl.dot(tl.trans(y), down, input_precision=PRECISION), RANK, P)
    inside = lags < L
    tl.store(g_diagonal + lags, tl.load(g_diagonal + lags, mask=inside, other=0.0) + tl.sum(g * y, 0), mask=inside)
    scale = 1.0 + tl.load(diagonal + lags, mask=inside, other=0.0)
    narrow = tl.dot(down, tl.trans(tile(first, lags, RANK, L, RANK, P)), input_precision=PRECISION)
    return tl.where(seen, g * scale[None, :] + narrow, 0.0)


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
    g_q,
    g_k,
    g_v,
    g_first,
    g_second,
    g_diagonal,
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
    set comes later. g_k, g_v and the gradients of tables have one part per program.
    """
    hb = tl.program_id(1).to(tl.int64)
    h, all_hb = hb // B, tl.num_programs(1)
    program = hb * tl.num_programs(0) + tl.program_id(0)
    buffer = scratch + program * (SETS + 2) * R * T
    grads, weights = buffer + SETS * R * T, buffer + (SETS + 1) * R * T
    tables = program * MIXINGS * L
    g_first, g_second, g_diagonal = g_first + tables * RANK, g_second + tables * RANK, g_diagonal + tables
    g_k, g_v = g_k + program * SETS * T * KEY, g_v + program * T * VALUE
    first, second, diagonal = first + h * L * RANK, second + h * L * RANK, diagonal + h * L
    control, g_control = control + hb * T * RANK, g_control + hb * T * RANK
    v, raw = v + hb * T * VALUE, raw + hb * T * VALUE
    last: tl.constexpr = SETS if BEFORE else 0
    of_last, one_table = last * H * L * RANK, L * RANK
    for block in tl.range(tl.program_id(0), tl.cdiv(T, R), tl.num_programs(0), disable_licm=True):
        start = block * R
        here = start + tl.arange(0, R)
        stop = tl.minimum(start + R, T)
        for s in tl.static_range(SETS):
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
        pull_R = tl.load(pull + hb * T + here, mask=here < T, other=0.0)
        tl.debug_barrier()
        low0, low1, low2 = tl.zeros([R, P], tl.float32), tl.zeros([R, P], tl.float32), tl.zeros([R, P], tl.float32)
        up0, up1, up2 = tl.zeros([R, P], tl.float32), tl.zeros([R, P], tl.float32), tl.zeros([R, P], tl.float32)
        control0 = tile(control, here, RANK, T, RANK, P)
        control1, control2 = control0, control0
        if BEFORE:
            low0 = narrow_scores(buffer, 0, first, here, stop, T, L, H, RANK, P, R, N, PRECISION)
            if SETS == 2:
                control1 = tile(control + all_hb * T * RANK, here, RANK, T, RANK, P)
                low1 = narrow_scores(buffer + R * T, 1, first, here, stop, T, L, H, RANK, P, R, N, PRECISION)
        if AFTER:
            control2 = tile(control + last * all_hb * T * RANK, here, RANK, T, RANK, P)
            for begin in tl.range(0, stop, N, disable_licm=True):
                lags = begin + tl.arange(0, N)
                at, seen = by_lag(grads, lags, here, T, R)
                _, gate = mixed_scores(
                    buffer, 0, low0 * control0, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
                )
                active = tl.maximum(gate, 0.0)
                if SETS == 2:
                    _, scale = mixed_scores(
                        buffer + R * T,
                        1,
                        low1 * control1,
                        second,
                        diagonal,
                        lags,
                        here,
                        T,
                        L,
                        H,
                        RANK,
                        P,
                        R,
                        BEFORE,
                        PRECISION,
                    )
                    active *= softplus(scale)
                low2 = tl.dot(active, tile(first + of_last, lags, RANK, L, RANK, P), low2, input_precision=PRECISION)
                g = tl.load(at, mask=seen, other=0.0)
                up2 = tl.dot(g, tile(second + of_last, lags, RANK, L, RANK, P), up2, input_precision=PRECISION)
            store_tile(g_control + last * all_hb * T * RANK, here, RANK, T, up2 * low2, RANK, P)
        for begin in tl.range(0, stop, N, disable_licm=True):
            lags = begin + tl.arange(0, N)
            at, seen = by_lag(grads, lags, here, T, R)
            to_weights, _ = by_lag(weights, lags, here, T, R)
            _, gate = mixed_scores(
                buffer, 0, low0 * control0, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
            )
            active = tl.maximum(gate, 0.0)
            if SETS == 2:
                _, scale = mixed_scores(
                    buffer + R * T,
                    1,
                    low1 * control1,
                    second,
                    diagonal,
                    lags,
                    here,
                    T,
                    L,
                    H,
                    RANK,
                    P,
                    R,
                    BEFORE,
                    PRECISION,
                )
                active *= softplus(scale)
            if AFTER:
                active = mixed(
                    active,
                    low2 * control2,
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
        for begin in tl.range(0, stop, N, disable_licm=True):
            keys = begin + tl.arange(0, N)
            at, seen = by_key(weights, keys, here, T, R)
            w = tl.load(at, mask=seen, other=0.0)
            add_tile(g_v, keys, VALUE, T, tl.dot(tl.trans(w), raw_RD, input_precision=PRECISION), VALUE, D)
        tl.debug_barrier()
        for begin in tl.range(0, stop, N, disable_licm=True):
            lags = begin + tl.arange(0, N)
            at, seen = by_lag(grads, lags, here, T, R)
            to_scale, _ = by_lag(weights, lags, here, T, R)
            g = tl.load(at, mask=seen, other=0.0)
            _, gate = mixed_scores(
                buffer, 0, low0 * control0, second, diagonal, lags, here, T, L, H, RANK, P, R, BEFORE, PRECISION
            )
            active, soft, scale = tl.maximum(gate, 0.0), 1.0, gate
            if SETS == 2:
                _, scale = mixed_scores(
                    buffer + R * T,
                    1,
                    low1 * control1,
                    second,
                    diagonal,
                    lags,
                    here,
                    T,
                    L,
                    H,
                    RANK,
                    P,
                    R,
                    BEFORE,
                    PRECISION,
                )
                soft = softplus(scale)
                active *= soft
            if AFTER:
                part = last * one_table
                g = mixing_adjoint(
                    g,
                    active,
                    up2,
                    low2 * control2,
                    first + of_last,
                    second + of_last,
                    diagonal + last * H * L,
                    g_first + part,
                    g_second + part,
                    g_diagonal + last * L,
                    lags,
                    seen,
                    control2,
                    L,
                    RANK,
                    P,
                    PRECISION,
                )
            if SETS == 2:
                g_scale = g * tl.maximum(gate, 0.0) / (1.0 + tl.exp(-tl.maximum(scale, -80.0)))
                tl.store(to_scale, g_scale, mask=seen)
                if BEFORE:
                    up1 = tl.dot(
                        g_scale, tile(second + H * one_table, lags, RANK, L, RANK, P), up1, input_precision=PRECISION
                    )
            g = tl.where(gate > 0.0, g * soft, 0.0) - pull_R[:, None] * gate
            tl.store(at, g, mask=seen)
            if BEFORE:
                up0 = tl.dot(g, tile(second, lags, RANK, L, RANK, P), up0, input_precision=PRECISION)
        tl.debug_barrier()
        if BEFORE:
            store_tile(g_control, here, RANK, T, up0 * low0, RANK, P)
            if SETS == 2:
                store_tile(g_control + all_hb * T * RANK, here, RANK, T, up1 * low1, RANK, P)
            for begin in tl.range(0, stop, N, disable_licm=True):
                lags = begin + tl.arange(0, N)
                from0, seen = by_lag(buffer, lags, here, T, R)
                at, _ = by_lag(grads, lags, here, T, R)
                g, y = tl.load(at, mask=seen, other=0.0), tl.load(from0, mask=seen, other=0.0)
                g = mixing_adjoint(
                    g,
                    y,
                    up0,
                    low0 * control0,
                    first,
                    second,
                    diagonal,
                    g_first,
                    g_second,
                    g_diagonal,
                    lags,
                    seen,
                    control0,
                    L,
                    RANK,
                    P,
                    PRECISION,
                )
                tl.store(at, g, mask=seen)
                if SETS == 2:
                    at = at + R * T
                    g, y = tl.load(at, mask=seen, other=0.0), tl.load(from0 + R * T, mask=seen, other=0.0)
                    g = mixing_adjoint(
                        g,
                        y,
                        up1,
                        low1 * control1,
                        first + H * one_table,
                        second + H * one_table,
                        diagonal + H * L,
                        g_first + one_table,
                        g_second + one_table,
                        g_diagonal + L,
                        lags,
                        seen,
                        control1,
                        L,
                        RANK,
                        P,
                        PRECISION,
                    )
                    tl.store(at, g, mask=seen)
            tl.debug_barrier()
        for s in tl.static_range(SETS):
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
