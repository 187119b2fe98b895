"""The normalised selective scan (arXiv 2312.00752) in the log domain, token by token: any finite values, and decoding.

In each channel e a row weighs the past by `Σ_n C_tn exp(Σ_{i<s≤t} Δ_s A_n) Δ_i B_in`, and its own token by a skip δ in
addition. The state of a component n is a mean over the past under its own weights, as in `kernels.linear.exact`: n (log
of the summed weights), m (mean of v), f (log of the mean of exp(u)).

In PyTorch `exact_read` computes in fp64: the weight of a token in a long past is a small difference of large n, which
fp32 rounds at every token. In fp32 the gradient of A was off by 5e-5 of its largest entry after 2,000 tokens.

Shape letters: B sequences, T tokens, N states, E channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.cpu.decoding import selective_step
from kernels.implementations import attempt, triton_module
from kernels.linear.exact import NOTHING
from kernels.numerics.log_mean_exp import log_mean_exp, log_mix
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

CHUNK = 16

State = dict[str, Tensor]


def empty_state(batch: int, states: int, channels: int, like: Tensor, free_energy: bool) -> State:
    """The state before the first token.

    Args:
        batch: sequences B.
        states: states N per channel.
        channels: channels E.
        like: a tensor of the dtype and device of the state.
        free_energy: whether the state has f.

    Returns:
        `n_BNE`, `m_BNE` and, for free energies, `f_BNE`, `[B, N, E]` each.
    """
    shape = (batch, states, channels)
    state = {"n_BNE": like.new_full(shape, NOTHING), "m_BNE": like.new_zeros(shape)}
    return state | {"f_BNE": like.new_zeros(shape)} if free_energy else state


@full_precision
def exact_read(
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BTE: Tensor,
    u_BTE: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Mean of v and log-mean-exp of u under the normalised scan.

    Args:
        log_delta: log Δ `[B, T, E]`; fp32 or fp64.
        a_NE: rates A ≤ 0 `[N, E]`.
        log_b: log B `[B, T, N]`.
        log_c: log C `[B, T, N]`.
        log_skip_E: log δ, the extra weight of the own token `[E]`.
        v_BTE: values `[B, T, E]`, any finite size.
        u_BTE: exponents `[B, T, E]`, any finite size; None if the mean alone is wanted.

    Returns:
        `E_p[v]` and `log E_p[exp(u)]`, `[B, T, E]` each; None for the second without u.
    """
    given = [log_delta, a_NE, log_b, log_c, log_skip_E, v_BTE]
    found = _read_opaquely(given if u_BTE is None else [*given, u_BTE], [])
    return found[0], None if u_BTE is None else found[1]


def _exact_read(tensors: list[Tensor]) -> list[Tensor]:
    given = (*tensors[:6], tensors[6] if len(tensors) > 6 else None)
    on_gpu = triton_module("selective_exact", tensors[5], *given)
    if on_gpu is None:
        return _by_pytorch(tensors)
    return attempt("selective_exact", lambda: list(on_gpu.exact_read(*given)), lambda: _by_pytorch(tensors))


def _by_pytorch(tensors: list[Tensor]) -> list[Tensor]:
    log_delta, a_NE, log_b, log_c, log_skip_E, v_BTE, *rest = tensors
    u_BTE = rest[0] if rest else None
    B, T, E = v_BTE.shape
    a_NE, log_skip_E = a_NE.double(), log_skip_E.double()
    state = empty_state(B, a_NE.shape[0], E, a_NE, u_BTE is not None)
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for part in (slice(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK)):
        inputs = [None if x is None else x[:, part] for x in (log_delta, log_b, log_c, v_BTE, u_BTE)]
        mu, log_mean, state = checkpoint(_chunk, state, a_NE, log_skip_E, *inputs, use_reentrant=False)
        mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    return [torch.cat(mus, dim=1)] if u_BTE is None else [torch.cat(mus, dim=1), torch.cat(logs, dim=1)]


_read_opaquely = opaque(
    "selective_exact_read",
    lambda ts, _: _exact_read(ts),
    lambda ts: [torch.empty(ts[5].shape, dtype=ts[5].dtype, device=ts[5].device) for _ in ts[5:]],  # of v and u
    exported_only=True,
)


def _chunk(
    state: State,
    a_NE: Tensor,
    log_skip_E: Tensor,
    log_delta: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    v: Tensor,
    u: Tensor | None,
) -> tuple[Tensor, Tensor | None, State]:
    dtype = v.dtype
    log_delta, log_b, log_c, v = log_delta.double(), log_b.double(), log_c.double(), v.double()
    u = None if u is None else u.double()
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for t in range(v.shape[1]):
        u_BE = None if u is None else u[:, t]
        mu, log_mean, state = exact_step(
            state, log_delta[:, t], a_NE, log_b[:, t], log_c[:, t], log_skip_E, v[:, t], u_BE
        )
        mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    return torch.stack(mus, dim=1).to(dtype), torch.stack(logs, dim=1).to(dtype) if logs else None, state


@full_precision
def exact_step(
    state: State,
    log_delta: Tensor,
    a_NE: Tensor,
    log_b: Tensor,
    log_c: Tensor,
    log_skip_E: Tensor,
    v_BE: Tensor,
    u_BE: Tensor | None,
) -> tuple[Tensor, Tensor | None, State]:
    """One token of decoding, compiled where nothing is differentiated.

    Args:
        state: the state before the token, see `empty_state`.
        log_delta: log Δ of the token `[B, E]`.
        a_NE: rates A ≤ 0 `[N, E]`.
        log_b: log B of the token `[B, N]`.
        log_c: log C of the token `[B, N]`.
        log_skip_E: log δ `[E]`.
        v_BE: its values `[B, E]`.
        u_BE: its exponents `[B, E]`; None if the mean alone is wanted.

    Returns:
        `E_p[v]` and `log E_p[exp(u)]`, `[B, E]` each (None for the second without u), and the state after the token.
    """
    stepped = selective_step(state, log_delta, a_NE, log_b, log_c, log_skip_E, v_BE, u_BE)
    if stepped is not None:
        return stepped
    old = state["n_BNE"] + log_delta.exp()[:, None] * a_NE
    new = log_delta[:, None] + log_b[..., None]
    n = torch.logaddexp(old, new)
    log_keep, log_add = old - n, new - n
    after = {"n_BNE": n, "m_BNE": torch.lerp(state["m_BNE"], v_BE[:, None].expand_as(n), log_add.exp())}
    weights = torch.cat((log_c[..., None] + n, log_skip_E.expand_as(v_BE)[:, None]), dim=1).log_softmax(1)
    mu = (weights.exp() * torch.cat((after["m_BNE"], v_BE[:, None]), dim=1)).sum(1)
    if u_BE is None:
        return mu, None, after
    after["f_BNE"] = log_mix(state["f_BNE"], u_BE[:, None].expand_as(n), log_keep, log_add)
    seen = torch.cat((after["f_BNE"], u_BE[:, None]), dim=1)
    return mu, log_mean_exp(weights.transpose(1, 2)[..., None, :], seen.transpose(1, 2)[..., None])[..., 0, 0], after
