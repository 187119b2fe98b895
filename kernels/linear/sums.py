"""Causal sums of linear attention (arXiv 2006.16236) with decay (2307.08621, 2312.06635), linear in T:

    out_t = Σ_{i≤t} ( Σ_c q_tc k_ic e^{G_tc − G_ic} ) v_i,          G = cumulative sum of the log-decays ≤ 0

Exact for any finite decay: every exponent is ≤ 0 and none is clipped; differences of G are taken in fp64, so a strong
decay leaves no rounding error. Nothing of shape `[T, k, w]` exists.

Chunks of 64 tokens: inside a chunk scores as in attention, between chunks a running state `[k, w]`. With one decay per
channel: blocks of 8 tokens within the chunk, each with its own reference point, and the 8×8 on the diagonal by offsets.
Backward computes the state forward again and its gradient backward; only the inputs are saved. The gradient of the
decays is `q·∂q − k·∂k`, summed from the end. On a CPU compiled implementations run (`kernels.cpu.linear`).

Shape letters: B sequences, T tokens, H heads, k and w channels per head of keys and values, n chunks of C tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.cpu.call import multiplies
from kernels.cpu.linear import DecayedSums
from kernels.implementations import attempt, triton_module
from kernels.linear.channel_scores import channel_scores, channel_scores_backward, chunked, whole
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision


@full_precision
def decayed_sums(q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, log_decay_BTHc: Tensor | None = None) -> Tensor:
    """The sums `out` above, not normalised.

    Args:
        q_BTHk: queries, features applied `[B, T, H, k]`; fp32 or fp64.
        k_BTHk: keys, features applied `[B, T, H, k]`.
        v_BTHw: values `[B, T, H, w]`; append ones for the sums of the weights.
        log_decay_BTHc: logarithms ≤ 0 of the decays, one per head `[B, T, H, 1]` or per key channel `[B, T, H, k]`;
            None for no decay. The decay of token t applies to everything before it.

    Returns:
        `[B, T, H, w]`.
    """
    return _sums_opaquely([x for x in (q_BTHk, k_BTHk, v_BTHw, log_decay_BTHc) if x is not None], [])[0]


def _decayed_sums(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None) -> Tensor:
    given = (q, k, v, log_decay)
    on_gpu = triton_module("linear", v, *given)
    if on_gpu is not None:
        return attempt("linear", lambda: on_gpu.decayed_sums(*given), lambda: _DecayedSums.apply(*given))
    tensors = [x for x in given if x is not None]
    decays = "" if log_decay is None else " BTH1" if log_decay.shape[-1] == 1 else " BTHk"
    sums = DecayedSums if multiplies("BTHk BTHk BTHw" + decays, *tensors) else _DecayedSums
    out: Tensor = sums.apply(*given)
    return out


_sums_opaquely = opaque(
    "decayed_sums",
    lambda ts, _: [_decayed_sums(*ts)],
    lambda ts: [torch.empty(ts[2].shape, dtype=ts[2].dtype, device=ts[2].device)],
    exported_only=True,
)


class _DecayedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, log_decay):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(q, k, v, log_decay)
        q_, k_, v_ = chunked(q), chunked(k), chunked(v)
        decay = _Decay(log_decay)
        out = _scores(q_, k_, decay) @ v_
        out += decay.since_start(q_) @ _states(decay, decay.until_end(k_).transpose(-1, -2) @ v_)
        return whole(out, v.shape)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        q, k, v, log_decay = ctx.saved_tensors
        q_, k_, v_, g_ = (chunked(x) for x in (q, k, v, grad))
        decay = _Decay(log_decay)
        k_end = decay.until_end(k_)
        states = _states(decay, k_end.transpose(-1, -2) @ v_)
        grad_states = _states(decay, decay.since_start(q_).transpose(-1, -2) @ g_, reverse=True)
        grad_v = _scores(q_, k_, decay).transpose(-1, -2) @ g_
        grad_v += k_end @ grad_states
        grad_q, grad_k = _scores_backward((g_ @ v_.transpose(-1, -2)).tril_(), q_, k_, decay)
        grad_q += decay.since_start(g_ @ states.transpose(-1, -2))
        grad_k += decay.until_end(v_ @ grad_states.transpose(-1, -2))
        grad_q, grad_k, grad_v = whole(grad_q, q.shape), whole(grad_k, k.shape), whole(grad_v, v.shape)
        if log_decay is None:
            return grad_q, grad_k, grad_v, None
        by_token = torch.addcmul(q.double() * grad_q, k.double(), grad_k.double(), value=-1.0)
        if log_decay.shape[-1] == 1:
            by_token = by_token.sum(-1, keepdim=True)
        return grad_q, grad_k, grad_v, by_token.flip(1).cumsum(1).flip(1).to(log_decay.dtype)


class _Decay:
    """The decays of every chunk: `total` is the log-decay summed from the chunk's start to each token, in fp64."""

    def __init__(self, log_decay_BTHc: Tensor | None) -> None:
        self.total: Tensor | None = None
        self.within: Tensor | None = None  # scalar decays: `[B, H, n, C, C]`, e^{G_t − G_i} for i ≤ t
        if log_decay_BTHc is not None:
            self.total = chunked(log_decay_BTHc).double().cumsum(-2)
            self.dtype = log_decay_BTHc.dtype
            if log_decay_BTHc.shape[-1] == 1:
                gaps = self.total - self.total.transpose(-1, -2)
                self.within = gaps.to(self.dtype).clamp_(max=0.0).exp_().tril_()

    def since_start(self, x: Tensor) -> Tensor:
        return x if self.total is None else x * self.total.to(self.dtype).exp()

    def until_end(self, x: Tensor) -> Tensor:
        return x if self.total is None else x * (self.total[..., -1:, :] - self.total).to(self.dtype).exp_()

    def of_chunks(self) -> Tensor | None:
        """`[B, H, n, c, 1]`: the factor by which a chunk decays the state before it."""
        return None if self.total is None else self.total[..., -1, :, None].to(self.dtype).exp()


def _states(decay: _Decay, added: Tensor, reverse: bool = False) -> Tensor:
    """The state before each chunk, or after each from the end, from what each adds: `[B, H, n, k, w]`."""
    states, factors = torch.empty_like(added), decay.of_chunks()
    order = range(added.shape[2])
    previous, running = None, torch.zeros_like(added[:, :, 0])
    for i in reversed(order) if reverse else order:
        if previous is not None:
            # forward: chunk i−1 decays the state and adds to it; from the end: chunk i+1 read it after its own decay
            decayed = running if factors is None else running * factors[:, :, previous]
            running = decayed + added[:, :, previous]
        states[:, :, i] = running
        previous = i
    return states


def _scores(q: Tensor, k: Tensor, decay: _Decay) -> Tensor:
    """`[B, H, n, C, C]`, zero above the diagonal."""
    if decay.total is None or decay.within is not None:
        scores = q @ k.transpose(-1, -2)
        return scores.tril_() if decay.within is None else scores.mul_(decay.within)
    return channel_scores(q, k, decay.total)


def _scores_backward(grad: Tensor, q: Tensor, k: Tensor, decay: _Decay) -> tuple[Tensor, Tensor]:
    if decay.total is None or decay.within is not None:
        if decay.within is not None:
            grad = grad.mul_(decay.within)
        return grad @ k, grad.transpose(-1, -2) @ q
    return channel_scores_backward(grad, q, k, decay.total)
