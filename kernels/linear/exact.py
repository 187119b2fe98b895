"""Linear attention with decay in the log domain: any finite values and any weights, also those that underflow.

The state of a head is, for each key channel c, a mean over the past under the weights `φ(k_i)_c e^{−decay since i}`:

    n_c = log of the summed weights        m_cj = mean of v_j        f_cj = log of the mean of exp(u_j)

A row weighs the tokens of its chunk and the k channels of the state together and takes one mean and one log-mean-exp
over them. With chunks of one token this is decoding. Many times more expensive than `kernels.linear.sums`; memory is
linear in T. In PyTorch `exact_read` computes in fp64: fp32 rounds n, which is large, at every chunk.

Shape letters: B sequences, T tokens, H heads, C tokens of a chunk, k and d channels per head of keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.cpu.decoding import linear_step
from kernels.implementations import attempt, triton_module
from kernels.numerics.log_mean_exp import log_mean_exp
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

CHUNK = 16
NOTHING = -1e30  # log of the weight of an empty state: finite, and below anything real

State = dict[str, Tensor]


def empty_state(batch: int, heads: int, key: int, value: int, like: Tensor, free_energy: bool) -> State:
    """The state before the first token.

    Args:
        batch: sequences B.
        heads: heads H.
        key: key channels k per head.
        value: value channels d per head.
        like: a tensor of the dtype and device of the state.
        free_energy: whether the state has f.

    Returns:
        `n_BHk` `[B, H, k]`, `m_BHkd` and, for free energies, `f_BHkd` `[B, H, k, d]`.
    """
    state = {
        "n_BHk": like.new_full((batch, heads, key), NOTHING),
        "m_BHkd": like.new_zeros(batch, heads, key, value),
    }
    if free_energy:
        state["f_BHkd"] = like.new_zeros(batch, heads, key, value)
    return state


@full_precision
def exact_read(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor | None]:
    """Mean of v and log-mean-exp of u under linear attention.

    Args:
        log_q: log φ(q) `[B, T, H, k]`; fp32 or fp64.
        log_k: log φ(k) `[B, T, H, k]`.
        log_decay: log-decays ≤ 0 `[B, T, H, 1]` or `[B, T, H, k]`; None for no decay.
        v: values `[B, T, H, d]`, any finite size.
        u: exponents `[B, T, H, d]`, any finite size; None if the mean alone is wanted.
        causal: whether row t sees keys i ≤ t only; otherwise every row sees all keys, and there are no decays.

    Returns:
        `E_p[v]` and `log E_p[exp(u)]`, `[B, T, H, d]` each; None for the second without u.
    """
    tensors, options = [log_q, log_k, v, *(x for x in (u, log_decay) if x is not None)], [int(causal)]
    if u is None:
        return _mean_opaquely(tensors, options)[0], None
    mu, log_mean = _both_opaquely(tensors, options)
    return mu, log_mean


def _exact_read(
    causal: bool, log_q: Tensor, log_k: Tensor, v: Tensor, u: Tensor | None, log_decay: Tensor | None = None
) -> list[Tensor]:
    given = (log_q, log_k, log_decay, v, u, causal)
    on_gpu = triton_module("linear_exact", v, *given)
    if on_gpu is None:
        found = _by_pytorch(*given)
    else:
        found = attempt("linear_exact", lambda: on_gpu.exact_read(*given), lambda: _by_pytorch(*given))
    return [x for x in found if x is not None]


_mean_opaquely = opaque(
    "linear_exact_mean",
    lambda ts, options: _exact_read(bool(options[0]), ts[0], ts[1], ts[2], None, *ts[3:]),
    lambda ts: [torch.empty(ts[2].shape, dtype=ts[2].dtype, device=ts[2].device)],
    exported_only=True,
)
_both_opaquely = opaque(
    "linear_exact_read",
    lambda ts, options: _exact_read(bool(options[0]), *ts),
    lambda ts: [torch.empty(ts[2].shape, dtype=ts[2].dtype, device=ts[2].device) for _ in range(2)],
    exported_only=True,
)


def _by_pytorch(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor | None]:
    B, T, H, k = log_q.shape
    state = empty_state(B, H, k, v.shape[-1], v.new_empty(0, dtype=torch.float64), u is not None)
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for part in (slice(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK)):
        inputs = [
            None if x is None else x[:, part].transpose(1, 2)
            for x in (log_q if causal else None, log_k, log_decay, v, u)
        ]
        # recomputed in backward, so that the `[C, k, d]` of all chunks never exist together
        mu, log_mean, state = checkpoint(_chunk_in_fp64, state, *inputs, use_reentrant=False)
        if mu is not None:
            mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    if not causal:
        mu, log_mean = (_of_dtype(x, v.dtype) for x in _mean_of_state(state, log_q.transpose(1, 2).double()))
        assert mu is not None
        mus, logs = [mu], [] if log_mean is None else [log_mean]
    return torch.cat(mus, dim=2).transpose(1, 2), None if u is None else torch.cat(logs, dim=2).transpose(1, 2)


def _of_dtype(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)


def _chunk_in_fp64(
    state: State, log_q: Tensor | None, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None
) -> tuple[Tensor | None, Tensor | None, State]:
    """`exact_chunk` in fp64, with results in the dtype of v."""
    q, decay, exponents = (_of_dtype(x, torch.float64) for x in (log_q, log_decay, u))
    mu, log_mean, state = exact_chunk(state, q, log_k.double(), decay, v.double(), exponents)
    return _of_dtype(mu, v.dtype), _of_dtype(log_mean, v.dtype), state


@full_precision
def exact_chunk(
    state: State, log_q: Tensor | None, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None
) -> tuple[Tensor | None, Tensor | None, State]:
    """Reads one chunk of tokens and adds it to the state; a chunk of one token is a step of decoding.

    Args:
        state: the state before the chunk, see `empty_state`.
        log_q: log φ(q) `[B, H, C, k]`; None if the chunk is added only.
        log_k: log φ(k) `[B, H, C, k]`.
        log_decay: log-decays `[B, H, C, 1]` or `[B, H, C, k]`; None for no decay.
        v: values `[B, H, C, d]`.
        u: exponents `[B, H, C, d]`; None if the mean alone is wanted.

    Returns:
        `E_p[v]` and `log E_p[exp(u)]`, `[B, H, C, d]` or None, and the state after the chunk.
    """
    total = torch.zeros_like(log_k[..., :1]) if log_decay is None else log_decay.double().cumsum(-2)
    mu, log_mean = None, None
    if log_q is not None:
        gaps = (total[..., :, None, :] - total[..., None, :, :]).to(v.dtype).clamp(max=0.0)
        pairs = (log_q[..., :, None, :] + log_k[..., None, :, :] + gaps).logsumexp(-1)
        hidden = torch.ones(pairs.shape[-2:], dtype=torch.bool, device=v.device).triu(1)
        to_state = log_q + total.to(v.dtype) + state["n_BHk"][..., None, :]
        weights = torch.cat((pairs.masked_fill(hidden, float("-inf")), to_state), dim=-1).log_softmax(-1)
        mu = weights.exp() @ torch.cat((v, state["m_BHkd"]), dim=-2)
        log_mean = None if u is None else log_mean_exp(weights, torch.cat((u, state["f_BHkd"]), dim=-2))
    return mu, log_mean, _absorb(state, log_k, total, v, u)


def exact_step(
    state: State, log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None
) -> tuple[Tensor, Tensor | None, State]:
    """One token of decoding: `exact_chunk` of one token, compiled where nothing is differentiated.

    Args:
        state: the state before the token, see `empty_state`.
        log_q: log φ(q) `[B, H, 1, k]`.
        log_k: log φ(k) `[B, H, 1, k]`.
        log_decay: log-decays `[B, H, 1, 1]` or `[B, H, 1, k]`; None for no decay.
        v: values `[B, H, 1, d]`.
        u: exponents `[B, H, 1, d]`; None if the mean alone is wanted.

    Returns:
        `E_p[v]` and `log E_p[exp(u)]`, `[B, H, 1, d]` each (None for the second without u), and the state after the
        token.
    """
    stepped = linear_step(state, log_q, log_k, log_decay, v, u)
    if stepped is not None:
        return stepped
    mu, log_mean, after = exact_chunk(state, log_q, log_k, log_decay, v, u)
    assert mu is not None  # there is a query
    return mu, log_mean, after


def _absorb(state: State, log_k: Tensor, total: Tensor, v: Tensor, u: Tensor | None) -> State:
    end = total[..., -1:, :]
    added = (log_k + (end - total).to(v.dtype)).transpose(-1, -2)
    logits = torch.cat(((state["n_BHk"] + end[..., 0, :].to(v.dtype))[..., None], added), dim=-1)  # [B, H, k, 1 + C]
    n = logits.logsumexp(-1)
    weights = (logits - n[..., None])[..., None, :]

    def with_state(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat((old[..., None, :], new[..., None, :, :].expand(*old.shape[:-1], *new.shape[-2:])), dim=-2)

    after = {"n_BHk": n, "m_BHkd": (weights.exp() @ with_state(state["m_BHkd"], v))[..., 0, :]}
    if u is not None:
        after["f_BHkd"] = log_mean_exp(weights, with_state(state["f_BHkd"], u))[..., 0, :]
    return after


def _mean_of_state(state: State, log_q: Tensor) -> tuple[Tensor, Tensor | None]:
    weights = (log_q + state["n_BHk"][..., None, :]).log_softmax(-1)
    return weights.exp() @ state["m_BHkd"], log_mean_exp(weights, state["f_BHkd"]) if "f_BHkd" in state else None
