"""Linear attention with decay in the log domain, causal (arguments: `kernels.linear.exact`): any finite values and
weights, token by token.

A program holds D value channels of one head. Forward: the state of a key channel is a mean over the past, n, m, f as in
that module; a row is a mean and a log-mean-exp over the key channels. Only the log-masses N of the rows and the results
are saved. Backward computes the forward states again for the queries, and from the end, for keys and values, the signed
sums over later rows

    M_cj = Σ_t e^{lq_tc − N_t + G_t − G_i} ∂μ_tj          X_cj = Σ_t e^{lq_tc − N_t − L_tj + G_t − G_i} ∂L_tj

each relative to its largest exponent, so that with e^{lk_ic} and e^{lk_ic + u_ij} every exponent is ≤ 0.

The state is in fp32, unlike PyTorch's, so the gradient of weak decays loses digits with length: it is off by 7e-6 of
its largest entry at 257 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.linear import decay_gradient
from kernels.gpu.shared.elementary import expm1, log1p, posterior
from kernels.gpu.shared.launch import Config, blocks, contiguous, launch, padded
from kernels.numerics.first_derivative import first_derivative_only

NOTHING = tl.constexpr(-1e30)
WIDEST = 128
SMALL = tl.constexpr(0.5)


@triton.jit
def log_add(a, b):
    """log(eᵃ + eᵇ)."""
    return tl.maximum(a, b) + log1p(tl.exp(-tl.abs(a - b)))


@triton.jit
def absorb(n, m, f, log_key, value, u):
    """Adds one token to the state of a head, as `log_mix`."""
    after = log_add(n, log_key)
    log_keep, log_new = (n - after)[:, None], (log_key - after)[:, None]
    m = m + tl.exp(log_new) * (value[None, :] - m)
    small = (tl.abs(f) <= SMALL) & (tl.abs(u) <= SMALL)[None, :]
    mean = tl.exp(log_keep) * expm1(tl.where(small, f, 0.0)) + tl.exp(log_new) * expm1(tl.where(small, u[None, :], 0.0))
    f = tl.where(small, log1p(tl.where(small, mean, 0.0)), log_add(log_keep + f, log_new + u[None, :]))
    return after, m, f


@triton.jit
def weights_of(n, log_query):
    """(log of the normalised weights of the key channels `[K]`, log-mass)."""
    logits = log_query + n
    top = tl.max(logits, 0)
    mass = top + tl.log(tl.sum(tl.exp(logits - top), 0))
    return logits - mass, mass


@triton.jit
def decay_at(log_decay, token, KEY: tl.constexpr, K: tl.constexpr, KIND: tl.constexpr):
    """The log-decays `[K]` of one token of a head."""
    c = tl.arange(0, K)
    if KIND == 2:
        return tl.load(log_decay + token * KEY + c, mask=c < KEY, other=0.0)
    if KIND == 1:
        return tl.load(log_decay + token) + tl.zeros([K], tl.float32)
    return tl.zeros([K], tl.float32)


@triton.jit
def forward_kernel(
    log_q,
    log_k,
    log_decay,
    v,
    u,
    mu,
    log_mean,
    mass,
    tokens,
    heads,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    KIND: tl.constexpr,
):
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    c, j = tl.arange(0, K), tl.program_id(0) * D + tl.arange(0, D)
    n, m, f = tl.full([K], NOTHING, tl.float32), tl.zeros([K, D], tl.float32), tl.zeros([K, D], tl.float32)
    for t in range(tokens):
        token = (b * tokens + t) * heads + h
        log_key = tl.load(log_k + token * KEY + c, mask=c < KEY, other=NOTHING)
        log_query = tl.load(log_q + token * KEY + c, mask=c < KEY, other=NOTHING)
        value = tl.load(v + token * VALUE + j, mask=j < VALUE, other=0.0)
        u_D = tl.load(u + token * VALUE + j, mask=j < VALUE, other=0.0)
        n, m, f = absorb(n + decay_at(log_decay, token, KEY, K, KIND), m, f, log_key, value, u_D)
        log_w, log_mass = weights_of(n, log_query)
        w = tl.exp(log_w)[:, None]
        tl.store(mu + token * VALUE + j, tl.sum(w * m, 0), mask=j < VALUE)
        z = log_w[:, None] + f
        top = tl.max(z, 0)
        full = top + tl.log(tl.sum(tl.exp(z - top[None, :]), 0))
        seen = (w > 0.0) & (c < KEY)[:, None]
        small = tl.max(tl.where(seen, tl.abs(f), 0.0), 0) <= SMALL
        mean = tl.sum(w * expm1(tl.where(seen & small[None, :], f, 0.0)), 0)
        tl.store(log_mean + token * VALUE + j, tl.where(small, log1p(mean), full), mask=j < VALUE)
        tl.store(mass + token, log_mass)


@triton.jit
def queries_kernel(
    log_q,
    log_k,
    log_decay,
    v,
    u,
    mu,
    log_mean,
    g_mu,
    g_log,
    g_q,
    tokens,
    heads,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    KIND: tl.constexpr,
):
    """g_q `[blocks of channels, B, T, H, k]`."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    part = tl.program_id(0) * (tl.num_programs(1) // heads).to(tl.int64) * tokens * heads
    c, j = tl.arange(0, K), tl.program_id(0) * D + tl.arange(0, D)
    n, m, f = tl.full([K], NOTHING, tl.float32), tl.zeros([K, D], tl.float32), tl.zeros([K, D], tl.float32)
    for t in range(tokens):
        token = (b * tokens + t) * heads + h
        log_key = tl.load(log_k + token * KEY + c, mask=c < KEY, other=NOTHING)
        log_query = tl.load(log_q + token * KEY + c, mask=c < KEY, other=NOTHING)
        value = tl.load(v + token * VALUE + j, mask=j < VALUE, other=0.0)
        u_D = tl.load(u + token * VALUE + j, mask=j < VALUE, other=0.0)
        n, m, f = absorb(n + decay_at(log_decay, token, KEY, K, KIND), m, f, log_key, value, u_D)
        log_w, _ = weights_of(n, log_query)
        at = token * VALUE + j
        to_mu, to_log = tl.load(g_mu + at, mask=j < VALUE, other=0.0), tl.load(g_log + at, mask=j < VALUE, other=0.0)
        centred, _ = posterior(log_w, f - tl.load(log_mean + at, mask=j < VALUE, other=0.0)[None, :])
        away = tl.exp(log_w)[:, None] * (m - tl.load(mu + at, mask=j < VALUE, other=0.0)[None, :])
        to_query = tl.sum(centred * to_log[None, :] + away * to_mu[None, :], 1)
        tl.store(g_q + (part + token) * KEY + c, to_query, mask=c < KEY)


@triton.jit
def keys_kernel(
    log_q,
    log_k,
    log_decay,
    v,
    u,
    mu,
    log_mean,
    mass,
    g_mu,
    g_log,
    g_k,
    g_v,
    g_u,
    tokens,
    heads,
    KEY: tl.constexpr,
    VALUE: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    KIND: tl.constexpr,
):
    """From the end. g_k `[blocks of channels, B, T, H, k]`."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    part = tl.program_id(0) * (tl.num_programs(1) // heads).to(tl.int64) * tokens * heads
    c, j = tl.arange(0, K), tl.program_id(0) * D + tl.arange(0, D)
    peak_K, mass_K, mean = tl.full([K], NOTHING, tl.float32), tl.zeros([K], tl.float32), tl.zeros([K, D], tl.float32)
    peak, total = tl.full([K, D], NOTHING, tl.float32), tl.zeros([K, D], tl.float32)
    for back in range(tokens):
        token = (b * tokens + tokens - 1 - back) * heads + h
        at = token * VALUE + j
        log_key = tl.load(log_k + token * KEY + c, mask=c < KEY, other=NOTHING)
        log_query = tl.load(log_q + token * KEY + c, mask=c < KEY, other=NOTHING)
        value, u_D = tl.load(v + at, mask=j < VALUE, other=0.0), tl.load(u + at, mask=j < VALUE, other=0.0)
        to_mu, to_log = tl.load(g_mu + at, mask=j < VALUE, other=0.0), tl.load(g_log + at, mask=j < VALUE, other=0.0)
        own_mu, own_log = tl.load(mu + at, mask=j < VALUE, other=0.0), tl.load(log_mean + at, mask=j < VALUE, other=0.0)
        z_K = log_query - tl.load(mass + token)
        higher_K = tl.maximum(peak_K, z_K)
        keep_K, new_K = tl.exp(peak_K - higher_K), tl.exp(z_K - higher_K)
        mass_K = mass_K * keep_K + new_K * tl.sum(to_log + to_mu * own_mu, 0)
        mean = mean * keep_K[:, None] + new_K[:, None] * to_mu[None, :]
        z = z_K[:, None] - own_log[None, :]
        higher = tl.maximum(peak, z)
        total = total * tl.exp(peak - higher) + tl.exp(z - higher) * to_log[None, :]
        inside = (c < KEY)[:, None]
        x = tl.where(inside, total * tl.exp(tl.minimum(log_key[:, None] + u_D[None, :] + higher, 0.0)), 0.0)
        y = tl.where(c < KEY, tl.exp(tl.minimum(log_key + higher_K, 0.0)), 0.0)
        tl.store(g_u + at, tl.sum(x, 0), mask=j < VALUE)
        tl.store(g_v + at, tl.sum(y[:, None] * mean, 0), mask=j < VALUE)
        to_key = tl.sum(x, 1) + y * (tl.sum(mean * value[None, :], 1) - mass_K)
        tl.store(g_k + (part + token) * KEY + c, to_key, mask=c < KEY)
        decay = decay_at(log_decay, token, KEY, K, KIND)
        peak_K, peak = higher_K + decay, higher + decay[:, None]


def refusal(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None, causal: bool
) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if u is None or not causal:
        return "it takes causal reads of a mean and a free energy"
    if v.dtype != torch.float32:
        return f"it takes float32, not {str(v.dtype).removeprefix('torch.')}"
    if log_q.shape[-1] > WIDEST:
        return f"it takes heads up to {WIDEST} key channels, not {log_q.shape[-1]}"
    return None


def exact_read(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    """(E_p[v], log E_p[exp(u)]), as `kernels.linear.exact.exact_read`; `causal` must be True."""
    assert causal
    results: tuple[Tensor, Tensor] = _ExactRead.apply(log_q, log_k, log_decay, v, u)
    return results


class _ExactRead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_q, log_k, v, u = contiguous(log_q, log_k, v, u)
        log_decay = None if log_decay is None else log_decay.contiguous()
        shared, grid, config = _common(log_q, log_k, log_decay, v, u)
        mu, log_mean, mass = torch.empty_like(v), torch.empty_like(v), v.new_empty(v.shape[:3])
        launch(forward_kernel, grid, config, **shared, mu=mu, log_mean=log_mean, mass=mass)
        ctx.save_for_backward(log_q, log_k, log_decay, v, u, mu, log_mean, mass)
        return mu, log_mean

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, g_mu: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        log_q, log_k, log_decay, v, u, mu, log_mean, mass = ctx.saved_tensors
        shared, grid, config = _common(log_q, log_k, log_decay, v, u)
        shared |= {"mu": mu, "log_mean": log_mean, "g_mu": g_mu.contiguous(), "g_log": g_log.contiguous()}
        g_q, g_k = (v.new_empty(grid[0], *log_q.shape) for _ in range(2))
        g_v, g_u = torch.empty_like(v), torch.empty_like(u)
        launch(queries_kernel, grid, config, **shared, g_q=g_q)
        launch(keys_kernel, grid, config, **shared, mass=mass, g_k=g_k, g_v=g_v, g_u=g_u)
        to_q, to_k = g_q.sum(0), g_k.sum(0)
        return to_q, to_k, None if log_decay is None else decay_gradient(to_q.double() - to_k, log_decay), g_v, g_u


def _common(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor
) -> tuple[dict[str, Any], tuple[int, int], Config]:
    """The arguments of all kernels of this module, their grid and tiles."""
    kind = 0 if log_decay is None else 1 if log_decay.shape[-1] == 1 else 2
    config = Config.of(warps=4, stages=1, D=16)
    shared = {
        "log_q": log_q,
        "log_k": log_k,
        "log_decay": log_decay,
        "v": v,
        "u": u,
        "tokens": v.shape[1],
        "heads": v.shape[2],
        "KEY": log_q.shape[-1],
        "VALUE": v.shape[-1],
        "K": padded(log_q.shape[-1]),
        "KIND": kind,
    }
    return shared, (blocks(v.shape[-1], config["D"]), v.shape[0] * v.shape[2]), config
