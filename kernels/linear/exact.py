"""Decayed linear attention in the log domain: any finite values, any weights, also where they underflow.

The state of a head is, for each key channel c, a mean over the past under the weights `φ(k_i)_c e^{−decay since i}`:

    n_c = log of the summed weights        m_cj = mean of v_j        f_cj = log of the mean of exp(u_j)

A row weighs the tokens of its chunk and the k channels of the state together and takes one mean and one log-mean-exp
over them. With chunks of one token this is decoding. Contract: log_q, log_k `[B, T, H, k]` (log of the features),
log-decays None, `[B, T, H, 1]` or `[B, T, H, k]`, v and u `[B, T, H, d]` (u None: means only); fp32 or fp64. Many times
dearer than `linear.py`, memory linear in T.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.implementations import attempt, triton_module
from kernels.numerics.log_mean_exp import log_mean_exp
from kernels.numerics.precision import full_precision

CHUNK = 16
NOTHING = -1e30  # log of the weight of an empty state: finite, and below anything real

State = dict[str, Tensor]


def empty_state(batch: int, heads: int, key: int, value: int, like: Tensor, free_energy: bool) -> State:
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
    """(E_p[v], log E_p[exp(u)]), `[B, T, H, d]` each. Not causal: without decays, every row sees everything."""
    given = (log_q, log_k, log_decay, v, u, causal)
    on_gpu = triton_module("linear_exact", v, *given)
    if on_gpu is not None:
        return attempt("linear_exact", lambda: on_gpu.exact_read(*given), lambda: _by_pytorch(*given))
    return _by_pytorch(*given)


def _by_pytorch(
    log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor | None]:
    B, T, H, k = log_q.shape
    state = empty_state(B, H, k, v.shape[-1], v, u is not None)
    mus: list[Tensor] = []
    logs: list[Tensor] = []
    for part in (slice(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK)):
        inputs = [
            None if x is None else x[:, part].transpose(1, 2)
            for x in (log_q if causal else None, log_k, log_decay, v, u)
        ]
        # recomputed in backward: a chunk's `[C, k, d]` never add up to `[T, k, d]`
        mu, log_mean, state = checkpoint(exact_chunk, state, *inputs, use_reentrant=False)
        if mu is not None:
            mus.append(mu)
        if log_mean is not None:
            logs.append(log_mean)
    if not causal:
        mu, log_mean = _mean_of_state(state, log_q.transpose(1, 2))
        mus, logs = [mu], [] if log_mean is None else [log_mean]
    return torch.cat(mus, dim=2).transpose(1, 2), None if u is None else torch.cat(logs, dim=2).transpose(1, 2)


@full_precision
def exact_chunk(
    state: State, log_q: Tensor | None, log_k: Tensor, log_decay: Tensor | None, v: Tensor, u: Tensor | None
) -> tuple[Tensor | None, Tensor | None, State]:
    """Rows of one chunk (none without queries) and the state after it. All `[B, H, C, …]`."""
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
