"""The gated delta rule (arXiv 2406.06484, 2412.06464): a linear memory that corrects what it holds under a key.

    S_t = α_t S_{t−1} + k_t ( β_t (v_t − α_t S_{t−1}ᵀ k_t) )ᵀ,        o_t = S_tᵀ q_t,        S_0 = 0

α is applied before the correction reads the memory. Chunks of 64 tokens, rows t and columns i of one chunk, G the sums
of log α from its start, its own token included:

    D_ti = e^{G_t − G_i} for i ≤ t,     L = strictly lower part of β_t (k_t·k_i) D_ti
    (I + L) U = β v,     (I + L) W = β e^{G} k              one unit lower triangular solve
    u = U − W S,     o = e^{G} q S + (q·k ⊙ D) u,     S ← e^{G_C} S + (e^{G_C − G} k)ᵀ u

Exact for decays of any size: every exponent is ≤ 0, and sums of them are in fp64. Memory is linear in T.

Shape letters: B sequences, T tokens, H heads, k and w channels per head of keys and values, n chunks of C tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.cpu.call import multiplies
from kernels.cpu.linear import DeltaRule
from kernels.implementations import attempt, triton_module
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

CHUNK = 64


@full_precision
def delta_rule(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTH: Tensor | None = None
) -> Tensor:
    """The memory's answers `o` above.

    Args:
        q_BTHk: queries `[B, T, H, k]`; fp32 or fp64, or bf16, which is computed in fp32.
        k_BTHk: keys `[B, T, H, k]`, of norm at most 1: a correction of a larger one overshoots.
        v_BTHw: values `[B, T, H, w]`.
        beta_BTH: how much of the error is corrected `[B, T, H]`, from 0 to 2; 0 at padding.
        log_decay_BTH: logarithms ≤ 0 of α `[B, T, H]`, 0 at padding; None for no decay.

    Returns:
        `[B, T, H, w]`, of the dtype of the values.
    """
    given = [q_BTHk, k_BTHk, v_BTHw, beta_BTH]
    return _rule_opaquely(given if log_decay_BTH is None else [*given, log_decay_BTH], [])[0]


def _delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None) -> Tensor:
    given = (q, k, v, beta, log_decay)
    on_gpu = triton_module("delta", v, *given)
    if on_gpu is not None:
        return attempt("delta", lambda: on_gpu.delta_rule(*given), lambda: _by_pytorch(*given))
    tensors = [x for x in given if x is not None]
    if multiplies("BTHk BTHk BTHw BTH" + " BTH" * (log_decay is not None), *tensors):
        out: Tensor = DeltaRule.apply(*given)
        return out
    return _by_pytorch(*given)


_rule_opaquely = opaque(
    "delta_rule",
    lambda ts, _: [_delta_rule(*ts)],
    lambda ts: [torch.empty(ts[2].shape, dtype=ts[2].dtype, device=ts[2].device)],
    exported_only=True,
)


def _by_pytorch(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTH: Tensor | None
) -> Tensor:
    if v_BTHw.dtype == torch.bfloat16:
        decay = None if log_decay_BTH is None else log_decay_BTH.float()
        q, k, v, beta = (x.float() for x in (q_BTHk, k_BTHk, v_BTHw, beta_BTH))
        return _by_pytorch(q, k, v, beta, decay).to(v_BTHw.dtype)
    B, T, H, w = v_BTHw.shape
    q, k, v, beta = (_chunked(x) for x in (q_BTHk, k_BTHk, v_BTHw, beta_BTH[..., None]))
    since, until, within, whole = _decays(log_decay_BTH, q)
    products = (k @ k.mT * within * beta).tril(-1)
    sides = torch.cat((beta * v, beta * since * k), dim=-1)
    solved = torch.linalg.solve_triangular(products, sides, upper=False, unitriangular=True)
    U, W = solved.split((w, k.shape[-1]), dim=-1)
    scores, q, k = (q @ k.mT) * within, since * q, until * k
    memory = v.new_zeros(B, H, k.shape[-1], w)
    rows: list[Tensor] = []
    for n in range(v.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ memory
        rows.append(q[:, :, n] @ memory + scores[:, :, n] @ u)
        memory = whole[:, :, n] * memory + k[:, :, n].mT @ u
    return torch.stack(rows, dim=2).flatten(2, 3)[:, :, :T].transpose(1, 2)


def _chunked(x_BTHw: Tensor) -> Tensor:
    """`[B, H, n, C, w]`; the last chunk is filled with zeros."""
    missing = -x_BTHw.shape[1] % CHUNK
    return pad(x_BTHw, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, CHUNK)).permute(0, 3, 1, 2, 4)


def _decays(log_decay_BTH: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^{G}, e^{G_C − G} `[…, C, 1]`, D `[…, C, C]` and e^{G_C} `[…, 1, 1]` of every chunk."""
    if log_decay_BTH is None:
        one = like.new_ones(*like.shape[:3], 1, 1)
        return one, one, like.new_ones(CHUNK, CHUNK).tril(), one
    total = _chunked(log_decay_BTH[..., None]).double().cumsum(-2)
    end, dtype = total[..., -1:, :], like.dtype
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=like.device).triu(1)
    within = (total - total.mT).masked_fill(later, float("-inf"))
    return total.exp().to(dtype), (end - total).exp().to(dtype), within.exp().to(dtype), end.exp().to(dtype)
