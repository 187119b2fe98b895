"""The delta rule with one decay per key channel (Kimi delta attention, arXiv 2510.26692), and a key of its own for what
a correction reads (as in RWKV-7, 2503.14456):

    M_t = diag(α_t) S_{t−1},     S_t = M_t + k_t ( β_t (v_t − M_tᵀ c_t) )ᵀ,     o_t = S_tᵀ q_t,     S_0 = 0

with c = k unless another one is given. Chunks as in `kernels.linear.delta`, where a product of two tokens has the
decays between them, channel by channel: `⟨x_t, y_i⟩ = Σ_c x_tc y_ic e^{G_tc − G_ic}`, G the sums of log α.

    L = strictly lower part of β_t ⟨c_t, k_i⟩,     (I + L) U = β v,     (I + L) W = β e^{G} c
    u = U − W S,     o = (e^{G} q) S + ⟨q, k⟩ u,     S ← e^{G_C} S + (e^{G_C − G} k)ᵀ u

Exact for decays of any size: every exponent is ≤ 0 (`kernels.linear.channel_scores`). Memory is linear in T.

Shape letters: B sequences, T tokens, H heads, k and w channels per head of keys and values, n chunks of C tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import multiplies
from kernels.cpu.linear import ChannelDeltaRule
from kernels.linear.channel_scores import channel_scores, channel_scores_backward, chunked, whole
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision


@full_precision
def channel_delta_rule(
    q_BTHk: Tensor,
    k_BTHk: Tensor,
    v_BTHw: Tensor,
    beta_BTH: Tensor,
    log_decay_BTHk: Tensor,
    read_BTHk: Tensor | None = None,
) -> Tensor:
    """The memory's answers `o` above.

    Args:
        q_BTHk: queries `[B, T, H, k]`; fp32 or fp64.
        k_BTHk: keys under which a token stores `[B, T, H, k]`.
        v_BTHw: values `[B, T, H, w]`.
        beta_BTH: how much of the error is corrected `[B, T, H]`; 0 at padding.
        log_decay_BTHk: logarithms ≤ 0 of α `[B, T, H, k]`, 0 at padding.
        read_BTHk: c, the key under which a correction reads `[B, T, H, k]`; None for that under which it stores. A
            correction overshoots where β c·k is more than 2.

    Returns:
        `[B, T, H, w]`.
    """
    given = [q_BTHk, k_BTHk, v_BTHw, beta_BTH, log_decay_BTHk]
    return _rule_opaquely(given if read_BTHk is None else [*given, read_BTHk], [])[0]


def _channel_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, read: Tensor | None = None
) -> Tensor:
    given = (q, k, v, beta, log_decay, k if read is None else read)
    if multiplies("BTHk BTHk BTHw BTH BTHk BTHk", *given):
        out: Tensor = ChannelDeltaRule.apply(*given)
        return out
    return _by_pytorch(*given)


# not traced by torch.compile either: its loops over blocks take minutes to compile, and the graph would not call C++
_rule_opaquely = opaque(
    "channel_delta_rule",
    lambda ts, _: [_channel_delta_rule(*ts)],
    lambda ts: [torch.empty(ts[2].shape, dtype=ts[2].dtype, device=ts[2].device)],
)


def _by_pytorch(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, read: Tensor) -> Tensor:
    B, _, H, w = v.shape
    q_, k_, v_, beta_, read_ = (chunked(x) for x in (q, k, v, beta[..., None], read))
    total = chunked(log_decay).double().cumsum(-2)  # a strong decay must leave no rounding error
    since, until = total.to(q.dtype).exp(), (total[..., -1:, :] - total).to(q.dtype).exp()
    products = (_Scores.apply(read_, k_, total) * beta_).tril(-1)
    sides = torch.cat((beta_ * v_, beta_ * since * read_), dim=-1)
    solved = torch.linalg.solve_triangular(products, sides, upper=False, unitriangular=True)
    U, W = solved.split((w, k.shape[-1]), dim=-1)
    scores, queries, stored = _Scores.apply(q_, k_, total), since * q_, until * k_
    memory = v.new_zeros(B, H, k.shape[-1], w)
    rows: list[Tensor] = []
    for n in range(v_.shape[2]):
        u = U[:, :, n] - W[:, :, n] @ memory
        rows.append(queries[:, :, n] @ memory + scores[:, :, n] @ u)
        memory = since[:, :, n, -1, :, None] * memory + stored[:, :, n].mT @ u
    return whole(torch.stack(rows, dim=2), v.shape)


class _Scores(torch.autograd.Function):
    """(rows x, columns y, G) → ⟨x_t, y_i⟩ for i ≤ t, in chunks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, total: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, total)
        return channel_scores(x, y, total)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, total = ctx.saved_tensors
        grad_x, grad_y = channel_scores_backward(grad.tril(), x, y, total)
        return grad_x, grad_y, x.double() * grad_x - y.double() * grad_y


def channel_delta_step(
    memory_BHkw: Tensor,
    q_BHk: Tensor,
    k_BHk: Tensor,
    v_BHw: Tensor,
    beta_BH: Tensor,
    log_decay_BHk: Tensor,
    read_BHk: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of decoding.

    Args:
        memory_BHkw: S before the token `[B, H, k, w]`; zeros before the first.
        q_BHk: its query `[B, H, k]`.
        k_BHk: its key `[B, H, k]`.
        v_BHw: its value `[B, H, w]`.
        beta_BH: its β `[B, H]`.
        log_decay_BHk: its log α `[B, H, k]`.
        read_BHk: its c `[B, H, k]`; None for its key.

    Returns:
        o `[B, H, w]`, and S after the token.
    """
    memory_BHkw = memory_BHkw * log_decay_BHk.exp()[..., None]
    read_BHk = k_BHk if read_BHk is None else read_BHk
    error_BHw = v_BHw - (read_BHk[:, :, None] @ memory_BHkw)[:, :, 0]
    memory_BHkw = memory_BHkw + k_BHk[..., None] * (beta_BH[..., None] * error_BHw)[:, :, None]
    return (q_BHk[:, :, None] @ memory_BHkw)[:, :, 0], memory_BHkw
