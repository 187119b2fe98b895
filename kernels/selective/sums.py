"""The selective scan of a diagonal state-space model (arXiv 2312.00752), several inputs in one pass:

    h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t v_t          y_t = C_t·h_t

The state is `[c, N, E]` per sequence and exists for one chunk of tokens at a time; forward saves the state at each
chunk's start, and backward computes the chunk again. In PyTorch there is one operation per token, on rows that stay in
the cache.

Shape letters: B sequences, T tokens, c inputs with the same dynamics, N states, E channels, t tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.cpu import scans as cpu
from kernels.cpu.call import takes
from kernels.implementations import attempt, triton_module
from kernels.numerics.first_derivative import first_derivative_only
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

CHUNK = 32


@full_precision
def selective_sums(delta_BTE: Tensor, a_NE: Tensor, b_BTN: Tensor, c_BTN: Tensor, v_BTcE: Tensor) -> Tensor:
    """Runs the scan on c inputs that share their dynamics.

    Args:
        delta_BTE: step sizes Δ ≥ 0 `[B, T, E]`; fp32 or fp64.
        a_NE: rates A ≤ 0 `[N, E]`.
        b_BTN: input weights B `[B, T, N]`.
        c_BTN: output weights C `[B, T, N]`.
        v_BTcE: inputs `[B, T, c, E]`.

    Returns:
        y `[B, T, c, E]`.
    """
    return _sums_opaquely([delta_BTE, a_NE, b_BTN, c_BTN, v_BTcE], [])[0]


def _selective_sums(*given: Tensor) -> Tensor:
    v_BTcE = given[-1]
    on_gpu = triton_module("selective", v_BTcE, *given)
    if on_gpu is not None:
        return attempt("selective", lambda: on_gpu.selective_sums(*given), lambda: _SelectiveSums.apply(*given))
    sums = cpu.SelectiveSums if takes("BTE NE BTN BTN BTcE", *given) else _SelectiveSums
    out: Tensor = sums.apply(*given)
    return out


_sums_opaquely = opaque(
    "selective_sums",
    lambda ts, _: [_selective_sums(*ts)],
    lambda ts: [torch.empty(ts[4].shape, dtype=ts[4].dtype, device=ts[4].device)],
    exported_only=True,
)


class _SelectiveSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta, a, b, c, v):  # type: ignore[no-untyped-def]
        B, T, copies, E = v.shape
        delta_, b_, c_, v_ = (*(x.transpose(0, 1) for x in (delta, b, c)), v.permute(1, 2, 0, 3))
        out, buffers = v.new_empty(T, copies, B, E), _Buffers(v, a)
        starts = v.new_zeros(-(-T // CHUNK) + 1, copies, B, *a.shape)
        for i, rows in enumerate(_chunks(T)):
            _, states = buffers.fill(delta_[rows], a, b_[rows], v_[rows], starts[i])
            torch.matmul(c_[rows][:, None, :, None], states, out=out[rows][..., None, :])
            starts[i + 1] = states[-1]
        ctx.save_for_backward(delta, a, b, c, v, starts)
        return out.permute(2, 0, 1, 3)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        delta, a, b, c, v, starts = ctx.saved_tensors
        delta_, b_, c_ = (x.transpose(0, 1) for x in (delta, b, c))
        v_, g_ = v.permute(1, 2, 0, 3), grad.permute(1, 2, 0, 3)
        to_delta, to_b, to_c, to_v = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (delta_, b_, c_, v_)
        )
        to_a, carry, buffers, later = torch.zeros_like(a), torch.zeros_like(starts[0]), _Buffers(v, a), _Buffers(v, a)
        for i, rows in reversed(list(enumerate(_chunks(v.shape[1])))):
            decay, states = buffers.fill(delta_[rows], a, b_[rows], v_[rows], starts[i])
            adjoint = later.adjoint(decay, c_[rows], g_[rows], carry)
            torch.mul(decay[0], adjoint[0], out=carry)
            to_c[rows] = (states @ g_[rows][..., None]).sum(1)[..., 0]
            inputs = delta_[rows][:, None] * v_[rows]
            to_b[rows] = (adjoint @ inputs[..., None]).sum(1)[..., 0]
            to_inputs = (b_[rows][:, None, :, None] @ adjoint)[..., 0, :]
            to_v[rows] = to_inputs * delta_[rows][:, None]
            states[1:] = states[:-1].clone()
            states[0] = starts[i]
            exponent = states.mul_(adjoint).sum(1).mul_(decay)  # gradient of Δ_t A, `[t, B, N, E]`
            to_delta[rows] = (exponent * a).sum(-2).add_((to_inputs * v_[rows]).sum(1))
            to_a += (exponent * delta_[rows][:, :, None]).sum((0, 1))
        return to_delta.transpose(0, 1), to_a, to_b.transpose(0, 1), to_c.transpose(0, 1), to_v.permute(2, 0, 1, 3)


class _Buffers:
    """One chunk's decays and states, reused by every chunk."""

    def __init__(self, v_BTcE: Tensor, a_NE: Tensor) -> None:
        B, T, copies, _ = v_BTcE.shape
        self.decay = v_BTcE.new_empty(min(CHUNK, T), B, *a_NE.shape)
        self.states = v_BTcE.new_empty(min(CHUNK, T), copies, B, *a_NE.shape)

    def fill(self, delta: Tensor, a: Tensor, b: Tensor, v: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """exp(Δ A) `[t, B, N, E]` and h `[t, c, B, N, E]` from the state before the chunk."""
        decay, states = self.decay[: len(v)], self.states[: len(v)]
        torch.mul(delta[:, :, None], a, out=decay).exp_()
        torch.mul((delta[:, None] * v)[..., None, :], b[:, None, :, :, None], out=states)
        for t in range(len(v)):
            states[t].addcmul_(decay[t], start)
            start = states[t]
        return decay, states

    def adjoint(self, decay: Tensor, c: Tensor, grad: Tensor, carry: Tensor) -> Tensor:
        """dL/dh `[t, c, B, N, E]`; `carry` comes from the next chunk."""
        states = self.states[: len(grad)]
        torch.mul(c[:, None, :, :, None], grad[..., None, :], out=states)
        states[-1] += carry
        for t in range(len(grad) - 2, -1, -1):
            states[t].addcmul_(decay[t + 1], states[t + 1])
        return states


def _chunks(T: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, T)) for start in range(0, T, CHUNK))
