"""Naive reference implementations that kernels are compared with, in PyTorch; correct as long as nothing overflows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention, softplus

from kernels.hyper.lag_mixing import LagMixing
from kernels.numerics.lag_layout import NORM_EPS


def attention(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor) -> Tensor:
    """PyTorch's fused causal attention."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHk, k_BTHk, v_BTHw))
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def free_energy_with_two_calls(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
    """One attention over v and one over exp(βv)."""
    return attention(q, k, v), attention(q, k, (beta_Hd * v).exp()).log() / beta_Hd


def dense_free_energy(q: Tensor, k: Tensor, v: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
    """All attention weights at once, a T × T matrix per head."""
    scores = torch.einsum("bshk,bthk->bhst", q, k) * q.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    p = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    mu, mean = (torch.einsum("bhst,bthw->bshw", p, values) for values in (v, (beta_Hd * v).exp()))
    return mu, mean.log() / beta_Hd


def linear_by_cumulative_sum(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTH: Tensor | None = None
) -> Tensor:
    """A state `k ⊗ v` for every token, summed along the sequence; decays as factors e^{G_t} e^{−G_s}, which overflow
    on long sequences.
    """
    if log_decay_BTH is not None:
        total = log_decay_BTH.cumsum(1)[..., None]
        q_BTHk, k_BTHk = q_BTHk * total.exp(), k_BTHk * (-total).exp()
    states = torch.einsum("bthk,bthw->bthkw", k_BTHk, v_BTHw).cumsum(1)
    return torch.einsum("bthk,bthkw->bthw", q_BTHk, states)


def decayed_sums_by_cumulative_sum(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTHc: Tensor | None = None
) -> Tensor:
    """The same with decays per head or per key channel, as the authors of FEM publish them (arXiv 2602.07160): the
    states themselves, `[B, T, H, k, w]`, are multiplied by e^{−G}, summed, and multiplied by e^{G}.
    """
    states = torch.einsum("bthk,bthw->bthkw", k_BTHk, v_BTHw)
    if log_decay_BTHc is None:
        states = states.cumsum(1)
    else:
        total = log_decay_BTHc.cumsum(1)[..., None]
        states = (states * (-total).exp()).cumsum(1) * total.exp()
    return torch.einsum("bthk,bthkw->bthw", q_BTHk, states)


def selective_step_by_step(delta_BTE: Tensor, a_NE: Tensor, b_BTN: Tensor, c_BTN: Tensor, v_BTE: Tensor) -> Tensor:
    """The recurrence of a selective state space, token by token."""
    state = v_BTE.new_zeros(v_BTE.shape[0], *a_NE.shape)
    rows = []
    for t in range(v_BTE.shape[1]):
        delta_B1E = delta_BTE[:, t, None]
        state = torch.exp(delta_B1E * a_NE) * state + delta_B1E * b_BTN[:, t, :, None] * v_BTE[:, t, None]
        rows.append((c_BTN[:, t, :, None] * state).sum(1))
    return torch.stack(rows, 1)


def delta_in_plain_chunks(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTH: Tensor, chunk: int = 64
) -> Tensor:
    """The gated delta rule in chunks (arXiv 2412.06464), the triangular matrix inverted row by row."""

    def chunked(x_BTHw: Tensor) -> Tensor:
        return pad(x_BTHw, (0, 0, 0, 0, 0, -x_BTHw.shape[1] % chunk)).transpose(1, 2).unflatten(2, (-1, chunk))

    q, k, v, beta, gates = (chunked(x) for x in (q_BTHk, k_BTHk, v_BTHw, beta_BTH[..., None], log_decay_BTH[..., None]))
    total = gates.cumsum(-2)
    decays = (total - total.mT).tril().exp().tril()
    inverse = -((beta * k) @ k.mT * decays).tril(-1)
    for i in range(1, chunk):
        row = inverse[..., i, :i] + (inverse[..., i, :i, None] * inverse[..., :i, :i]).sum(-2)
        row = torch.cat((row, inverse[..., i, i:]), -1)[..., None, :]
        inverse = torch.cat((inverse[..., :i, :], row, inverse[..., i + 1 :, :]), -2)
    inverse = inverse + torch.eye(chunk, dtype=q.dtype)
    added, read = inverse @ (beta * v), inverse @ (beta * k * total.exp())
    memory, rows = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]), []
    for n in range(q.shape[2]):
        u = added[:, :, n] - read[:, :, n] @ memory
        rows.append((q * total.exp())[:, :, n] @ memory + (q[:, :, n] @ k[:, :, n].mT * decays[:, :, n]) @ u)
        end = total[:, :, n, -1:]
        memory = memory * end.exp() + (k[:, :, n] * (end - total[:, :, n]).exp()).mT @ u
    return torch.stack(rows, 2).flatten(2, 3).transpose(1, 2)[:, : v_BTHw.shape[1]]


def channel_delta_step_by_step(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTHk: Tensor
) -> Tensor:
    """The delta rule with one decay per key channel (Kimi delta attention, arXiv 2510.26692), token by token."""
    decay_BTHk, rows = log_decay_BTHk.exp(), []
    memory_BHkw = v_BTHw.new_zeros(*k_BTHk.shape[:1], *k_BTHk.shape[2:], v_BTHw.shape[-1])
    for t in range(q_BTHk.shape[1]):
        memory_BHkw = decay_BTHk[:, t, ..., None] * memory_BHkw
        error_BHw = v_BTHw[:, t] - (memory_BHkw * k_BTHk[:, t, ..., None]).sum(-2)
        memory_BHkw = memory_BHkw + (beta_BTH[:, t, :, None] * k_BTHk[:, t])[..., None] * error_BHw[..., None, :]
        rows.append((memory_BHkw * q_BTHk[:, t, ..., None]).sum(-2))
    return torch.stack(rows, 1)


def channelwise_by_cumulative_sum(k_BTE: Tensor, v_BTE: Tensor) -> Tensor:
    """The weights are exp(k), which overflows for k > 88."""
    weights = k_BTE.exp()
    return (weights * v_BTE).cumsum(1) / weights.cumsum(1)


def diagonal_by_cumulative_sum(a_BTR: Tensor, x_BTR: Tensor) -> Tensor:
    """h = A · cumsum(x / A), with A the running product of the decays, which underflows."""
    product = a_BTR.log().cumsum(1).exp()
    return product * (x_BTR / product).cumsum(1)


def dense_lag_mix(
    q_SHBTd: Tensor, k_SHBTd: Tensor, v_HBTw: Tensor, before: Sequence[LagMixing], after: LagMixing
) -> Tensor:
    """All scores as a T × T matrix, gathered into lag order and back; causal, tables indexed by lag."""
    T = v_HBTw.shape[2]
    t = torch.arange(T)
    lag_TT, visible_TT = (t[:, None] - t).clamp_min(0), (t[:, None] >= t)
    index = lag_TT.expand(*v_HBTw.shape[:2], T, T)

    def mix(y: Tensor, mixing: LagMixing) -> Tensor:
        first, second, diagonal = (
            mixing.first_HLr[:, None, :T],
            mixing.second_HLr[:, None, :T],
            mixing.diagonal_HL[:, None, None, :T],
        )
        return (y * (1 + diagonal) + ((y @ first) * mixing.control_HBTr) @ second.transpose(-1, -2)) * visible_TT

    scores = [
        mix((q @ k.transpose(-1, -2)).gather(-1, index) * visible_TT, m)
        for q, k, m in zip(q_SHBTd, k_SHBTd, before, strict=True)
    ]
    active = scores[0].relu() / (scores[0].square().sum(-1, keepdim=True) + NORM_EPS).sqrt()
    if len(scores) == 2:
        active = softplus(scores[1]) * active
    return (mix(active, after).gather(-1, index) * visible_TT) @ v_HBTw


def lag_mix_in_chunks(
    q_SHBTd: Tensor, k_SHBTd: Tensor, v_HBTw: Tensor, before: Sequence[LagMixing], after: LagMixing, chunk: int
) -> Tensor:
    """The same for `chunk` rows at a time, with the keys up to the last of them, as the authors of HyperGLU publish it
    (arXiv 2602.12601): rows are shifted into lag order and back by padding and another row pitch, without a gather, and
    the norm of a row multiplies its output.
    """
    rows = []
    for begin in range(0, v_HBTw.shape[2], chunk):
        end = min(begin + chunk, v_HBTw.shape[2])
        rows.append(_rows_in_lag_order(q_SHBTd, k_SHBTd, v_HBTw, before, after, begin, end))
    return torch.cat(rows, 2)


def _rows_in_lag_order(
    q: Tensor, k: Tensor, v: Tensor, before: Sequence[LagMixing], after: LagMixing, begin: int, end: int
) -> Tensor:
    """The outputs of rows `begin` to `end`. The last column is lag 0, so tables are read in reverse order."""
    visible = torch.arange(end) >= torch.arange(end - begin - 1, -1, -1)[:, None]

    def mix(y: Tensor, mixing: LagMixing) -> Tensor:
        first, second, diagonal = (
            x[:, :end].flip(1)[:, None] for x in (mixing.first_HLr, mixing.second_HLr, mixing.diagonal_HL[..., None])
        )
        low = (y @ first) * mixing.control_HBTr[:, :, begin:end]
        return (y * (1 + diagonal.transpose(-1, -2)) + low @ second.transpose(-1, -2)) * visible

    scores = [
        mix(_to_lags(q_HBTd[:, :, begin:end] @ k_HBTd[:, :, :end].transpose(-1, -2)), mixing)
        for q_HBTd, k_HBTd, mixing in zip(q, k, before, strict=True)
    ]
    active, norm = scores[0].relu(), (scores[0].square().sum(-1, keepdim=True) + NORM_EPS).sqrt()
    if len(scores) == 2:
        active = softplus(scores[1]) * active
    return _to_keys(mix(active, after)) @ v[:, :, :end] / norm


def _to_lags(x_HBMK: Tensor) -> Tensor:
    """Row r is shifted to the right by M − 1 − r: what it does not see is cut off, zeros come in from the left."""
    M, K = x_HBMK.shape[2:]
    flat = pad(x_HBMK, (M, 0, 0, 1)).flatten(2)  # M zeros before each row, and a row that is cut off again
    return flat[..., 1 : 1 + M * (K + M + 1)].unflatten(-1, (M, K + M + 1))[..., :K]


def _to_keys(y_HBMK: Tensor) -> Tensor:
    """The inverse of `_to_lags`, with zeros at the keys that a row does not see."""
    M, K = y_HBMK.shape[2:]
    flat = pad(y_HBMK, (0, M)).flatten(2)
    return flat[..., M - 1 : M - 1 + M * (K + M - 1)].unflatten(-1, (M, K + M - 1))[..., :K]
