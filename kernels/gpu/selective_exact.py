"""The normalised selective scan in the log domain (arguments: `kernels.selective.exact`), token by token.

A program holds the states of R channels: n, m, f as in that module. Logarithms of weights and of means are fp64, so
that a difference of large ones keeps its digits; exponentials and logarithms are of differences, in fp32.

Backward goes through chunks of tokens from the end: it computes the states of a chunk again, into scratch memory, and
carries the signed sums over later rows, N_t the log-mass of a row and G the sums of Δ A,

    M_n = Σ_t e^{lc_tn − N_t + G_t − G_i} ∂μ_t          X_n = Σ_t e^{lc_tn − N_t − L_t + G_t − G_i} ∂L_t

each relative to its largest exponent. With the weight of a token, or of the state before it, every exponent is ≤ 0.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.shared.elementary import expm1, log1p
from kernels.gpu.shared.launch import Config, blocks, contiguous, launch
from kernels.numerics.first_derivative import first_derivative_only

CHUNK = 32
CONFIG = Config.of(warps=4, stages=1, R=32, CHUNK=CHUNK)
WIDEST = 64  # states per channel
NOTHING = tl.constexpr(-1e30)
SMALL = tl.constexpr(0.5)


@triton.jit
def power(exponent):
    """e^exponent in fp32, of an exponent ≤ 0 in fp64."""
    return tl.exp(tl.minimum(exponent, 0.0).to(tl.float32))


@triton.jit
def log_add(a, b):
    """log(eᵃ + eᵇ) in fp64."""
    return tl.maximum(a, b) + log1p(power(-tl.abs(a - b))).to(tl.float64)


@triton.jit
def centred(log_p, x):
    """`p e^x − p` in fp32."""
    small = tl.abs(x) <= SMALL
    p = power(log_p)
    return tl.where(small, p * expm1(tl.where(small, x, 0.0).to(tl.float32)), power(log_p + x) - p)


@triton.jit
def absorb(n, m, f, log_key, value, u):
    """Adds one token to the states `[N, R]`, after their decay; value and u `[1, R]`."""
    gap = log_key - n
    both = log1p(power(-tl.abs(gap))).to(tl.float64)
    log_keep, log_new = -tl.maximum(gap, 0.0) - both, -tl.maximum(-gap, 0.0) - both
    m += power(log_new) * (value - m)
    small = (tl.abs(f) <= SMALL) & (tl.abs(u) <= SMALL)
    kept, new = tl.where(small, f, 0.0).to(tl.float32), tl.where(small, u, 0.0).to(tl.float32)
    mean = power(log_keep) * expm1(kept) + power(log_new) * expm1(new)
    f = tl.where(small, log1p(mean).to(tl.float64), log_add(log_keep + f, log_new + u))
    return tl.maximum(n, log_key) + both, m, f


@triton.jit
def token_of(log_delta, log_b, a, v, u, at, mine, n, channels, STATES: tl.constexpr):
    """(Δ `[1, R]`, Δ A, log-weight `[N, R]`, value, exponent `[1, R]`) of one token; logarithms in fp64."""
    here = (mine < channels)[None, :]
    places = at * channels + mine[None, :]
    log_step = tl.load(log_delta + places, mask=here, other=0.0)
    log_into = tl.load(log_b + at * STATES + n, mask=n < STATES, other=NOTHING)
    value, exponent = tl.load(v + places, mask=here, other=0.0), tl.load(u + places, mask=here, other=0.0)
    step = tl.exp(log_step)
    log_key = log_step.to(tl.float64) + log_into.to(tl.float64)[:, None]
    return step, (step * a).to(tl.float64), log_key, value, exponent.to(tl.float64)


@triton.jit
def save(buffer, n, m, f, size, inside):
    tl.store(buffer, n, mask=inside)
    tl.store(buffer + size, m.to(tl.float64), mask=inside)
    tl.store(buffer + 2 * size, f, mask=inside)


@triton.jit
def saved(buffer, size, inside):
    n = tl.load(buffer, mask=inside, other=NOTHING)
    m = tl.load(buffer + size, mask=inside, other=0.0)
    return n, m.to(tl.float32), tl.load(buffer + 2 * size, mask=inside, other=0.0)


@triton.jit
def forward_kernel(
    log_delta,
    a,
    log_b,
    log_c,
    log_skip,
    v,
    u,
    mu,
    log_mean,
    mass,
    exact,
    starts,
    tokens,
    channels,
    chunks,
    STATES: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """mass, exact `[B, T, E]`: N and L in fp64; starts `[B, chunks, 3, N, E]`: n, m, f before each chunk."""
    mine, batch = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    state = tl.arange(0, N)
    here = mine < channels
    inside = (state < STATES)[:, None] & here[None, :]
    places = state[:, None] * channels + mine[None, :]
    size = STATES * channels
    rates = tl.load(a + places, mask=inside, other=0.0)
    skip = tl.load(log_skip + mine, mask=here, other=0.0).to(tl.float64)
    n, f = tl.full([N, R], NOTHING, tl.float64), tl.zeros([N, R], tl.float64)
    m = tl.zeros([N, R], tl.float32)
    for t in range(tokens):
        if t % CHUNK == 0:
            save(starts + (batch * chunks + t // CHUNK) * 3 * size + places, n, m, f, size, inside)
        at = batch * tokens + t
        _, decay, log_key, value, u_1R = token_of(log_delta, log_b, rates, v, u, at, mine, state, channels, STATES)
        n, m, f = absorb(n + decay, m, f, log_key, value, u_1R)
        log_out = tl.load(log_c + at * STATES + state, mask=state < STATES, other=NOTHING).to(tl.float64)
        logits = log_out[:, None] + n
        top = tl.maximum(tl.max(logits, 0), skip)
        log_mass = top + tl.log(tl.sum(power(logits - top[None, :]), 0) + power(skip - top)).to(tl.float64)
        log_w, log_own = logits - log_mass[None, :], skip - log_mass
        w, own, u_R = power(log_w), power(log_own), tl.sum(u_1R, 0)
        read = tl.sum(w * m, 0) + own * tl.sum(value, 0)
        z, z_own = log_w + f, log_own + u_R
        top = tl.maximum(tl.max(z, 0), z_own)
        full = top + tl.log(tl.sum(power(z - top[None, :]), 0) + power(z_own - top)).to(tl.float64)
        sizes = tl.where(inside & (w > 0.0), tl.abs(f), 0.0)
        small = tl.maximum(tl.max(sizes, 0), tl.abs(u_R)) <= SMALL
        mean = tl.sum(w * expm1(tl.where(sizes <= SMALL, f, 0.0).to(tl.float32)), 0)
        mean += own * expm1(tl.where(small, u_R, 0.0).to(tl.float32))
        result = tl.where(small, log1p(tl.where(small, mean, 0.0)).to(tl.float64), full)
        row = at * channels + mine
        tl.store(mu + row, read, mask=here)
        tl.store(log_mean + row, result.to(tl.float32), mask=here)
        tl.store(exact + row, result, mask=here)
        tl.store(mass + row, log_mass, mask=here)


@triton.jit
def backward_kernel(
    log_delta,
    a,
    log_b,
    log_c,
    log_skip,
    v,
    u,
    mu,
    mass,
    exact,
    starts,
    scratch,
    g_mu,
    g_log,
    g_delta,
    g_a,
    g_b,
    g_c,
    g_skip,
    g_v,
    g_u,
    tokens,
    channels,
    chunks,
    STATES: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """g_a `[B, N, E]`, g_skip `[B, E]`, g_b and g_c `[blocks of channels, B, T, N]`; scratch `[B, CHUNK + 1, 3, N, E]`.

    Of the sums over later rows, `mean` is M, `lost` is that of ∂L + μ ∂μ, `total` is X.
    """
    mine, batch = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1).to(tl.int64)
    state = tl.arange(0, N)
    here, real = mine < channels, state < STATES
    inside = real[:, None] & here[None, :]
    places = state[:, None] * channels + mine[None, :]
    size = STATES * channels
    rates = tl.load(a + places, mask=inside, other=0.0)
    skip = tl.load(log_skip + mine, mask=here, other=0.0).to(tl.float64)
    buffer = scratch + batch * (CHUNK + 1) * 3 * size + places
    partial = (tl.program_id(0) * tl.num_programs(1) + batch) * tokens
    peak, peak_of_total = tl.full([N, R], NOTHING, tl.float64), tl.full([N, R], NOTHING, tl.float64)
    mean, lost, total = tl.zeros([N, R], tl.float32), tl.zeros([N, R], tl.float32), tl.zeros([N, R], tl.float32)
    to_rates, to_skip = tl.zeros([N, R], tl.float32), tl.zeros([R], tl.float32)
    for i in range(chunks):
        first = (chunks - 1 - i) * CHUNK
        length = tl.minimum(tokens - first, CHUNK)
        n, m, f = saved(starts + (batch * chunks + chunks - 1 - i) * 3 * size + places, size, inside)
        save(buffer, n, m, f, size, inside)
        for j in range(length):
            at = batch * tokens + first + j
            _, decay, log_key, value, u_1R = token_of(log_delta, log_b, rates, v, u, at, mine, state, channels, STATES)
            n, m, f = absorb(n + decay, m, f, log_key, value, u_1R)
            save(buffer + (j + 1) * 3 * size, n, m, f, size, inside)
        tl.debug_barrier()
        for back in range(length):
            j = length - 1 - back
            at = batch * tokens + first + j
            row = at * channels + mine
            step, decay, log_key, value, u_1R = token_of(
                log_delta, log_b, rates, v, u, at, mine, state, channels, STATES
            )
            to_mu, to_log = tl.load(g_mu + row, mask=here, other=0.0), tl.load(g_log + row, mask=here, other=0.0)
            own_mu, log_mass = tl.load(mu + row, mask=here, other=0.0), tl.load(mass + row, mask=here, other=0.0)
            L = tl.load(exact + row, mask=here, other=0.0)
            # what the row gives to its weights: those of the states, and that of its own token
            z = (
                tl.load(log_c + at * STATES + state, mask=real, other=NOTHING).to(tl.float64)[:, None]
                - log_mass[None, :]
            )
            n, m, f = saved(buffer + (j + 1) * 3 * size, size, inside)
            to_read = centred(z + n, f - L[None, :]) * to_log[None, :]
            to_read += power(z + n) * (m - own_mu[None, :]) * to_mu[None, :]
            tl.store(g_c + (partial + first + j) * STATES + state, tl.sum(to_read, 1), mask=real)
            u_R, value_R, log_own = tl.sum(u_1R, 0), tl.sum(value, 0), skip - log_mass
            own = power(log_own)
            to_skip += centred(log_own, u_R - L) * to_log + own * (value_R - own_mu) * to_mu
            # the sums, now with this row
            higher = tl.maximum(peak, z)
            keep, new = power(peak - higher), power(z - higher)
            mean = mean * keep + new * to_mu[None, :]
            lost = lost * keep + new * (to_log + to_mu * own_mu)[None, :]
            peak = higher
            z -= L[None, :]
            higher = tl.maximum(peak_of_total, z)
            total = total * power(peak_of_total - higher) + power(z - higher) * to_log[None, :]
            peak_of_total = higher
            # what these rows give to the token, and to the state before it through the decay
            x, y = total * power(log_key + u_1R + peak_of_total), power(log_key + peak)
            to_key = x + y * (mean * value - lost)
            tl.store(g_b + (partial + first + j) * STATES + state, tl.sum(to_key, 1), mask=real)
            tl.store(g_v + row, tl.sum(y * mean, 0) + own * to_mu, mask=here)
            tl.store(g_u + row, tl.sum(x, 0) + power(log_own + u_R - L) * to_log, mask=here)
            n, m, f = saved(buffer + j * 3 * size, size, inside)
            n += decay
            to_decay = total * power(n + f + peak_of_total) + power(n + peak) * (mean * m - lost)
            to_decay *= step
            to_rates += to_decay
            tl.store(g_delta + row, tl.sum(to_key + to_decay * rates, 0), mask=here)
            peak += decay
            peak_of_total += decay
        tl.debug_barrier()
    tl.store(g_a + batch * size + places, to_rates, mask=inside)
    tl.store(g_skip + batch * channels + mine, to_skip, mask=here)


def refusal(
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BTE: Tensor,
    u_BTE: Tensor | None,
) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if u_BTE is None:
        return "it takes reads of a mean and a free energy"
    if v_BTE.dtype != torch.float32:
        return f"it takes float32, not {str(v_BTE.dtype).removeprefix('torch.')}"
    if a_NE.shape[0] > WIDEST:
        return f"it takes up to {WIDEST} states per channel, not {a_NE.shape[0]}"
    return None


def exact_read(
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BTE: Tensor,
    u_BTE: Tensor,
) -> tuple[Tensor, Tensor]:
    """(E_p[v], log E_p[exp(u)]), as `kernels.selective.exact.exact_read`."""
    results: tuple[Tensor, Tensor] = _ExactRead.apply(log_delta, a_NE, log_b, log_c, log_skip_E, v_BTE, u_BTE)
    return results


class _ExactRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        inputs = contiguous(*given)
        a, v = inputs[1], inputs[5]
        mu, log_mean = torch.empty_like(v), torch.empty_like(v)
        mass, exact = (v.new_empty(v.shape, dtype=torch.float64) for _ in range(2))
        starts = mass.new_empty(v.shape[0], blocks(v.shape[1], CHUNK), 3, *a.shape)
        made = {"mu": mu, "log_mean": log_mean, "mass": mass, "exact": exact, "starts": starts}
        launch(forward_kernel, _grid(v), CONFIG, **_common(inputs), **made)
        ctx.save_for_backward(*inputs, mu, mass, exact, starts)
        return mu, log_mean

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, g_mu: Tensor, g_log: Tensor) -> tuple[Tensor, ...]:
        *inputs, mu, mass, exact, starts = ctx.saved_tensors
        a, log_b, v = inputs[1], inputs[2], inputs[5]
        grid, B, E = _grid(v), v.shape[0], v.shape[2]
        scratch = mass.new_empty(B, CHUNK + 1, 3, *a.shape)
        read = {"mu": mu, "mass": mass, "exact": exact, "starts": starts, "scratch": scratch}
        g_delta, g_v, g_u = (torch.empty_like(v) for _ in range(3))
        g_a, g_skip = v.new_empty(B, *a.shape), v.new_empty(B, E)
        g_b, g_c = (v.new_empty(grid[0], *log_b.shape) for _ in range(2))
        made = {"g_delta": g_delta, "g_a": g_a, "g_b": g_b, "g_c": g_c, "g_skip": g_skip, "g_v": g_v, "g_u": g_u}
        upstream = {"g_mu": g_mu.contiguous(), "g_log": g_log.contiguous()}
        launch(backward_kernel, grid, CONFIG, **_common(inputs), **read, **upstream, **made)
        return g_delta, g_a.sum(0), g_b.sum(0), g_c.sum(0), g_skip.sum(0), g_v, g_u


NAMES = ("log_delta", "a", "log_b", "log_c", "log_skip", "v", "u")


def _common(inputs: tuple[Tensor, ...] | list[Tensor]) -> dict[str, Any]:
    """The arguments of both kernels."""
    a, v = inputs[1], inputs[5]
    sizes = {"tokens": v.shape[1], "channels": v.shape[2], "chunks": blocks(v.shape[1], CHUNK)}
    padded = {"STATES": a.shape[0], "N": 1 << (a.shape[0] - 1).bit_length()}
    return dict(zip(NAMES, inputs, strict=True)) | sizes | padded


def _grid(v: Tensor) -> tuple[int, int]:
    return blocks(v.shape[2], CONFIG["R"]), v.shape[0]
