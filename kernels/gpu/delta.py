"""The gated delta rule (arguments: `kernels.linear.delta`) in chunks of 32 tokens.

Only the memory S is carried from chunk to chunk, by a kernel of its own; the other kernels process all chunks in
parallel. With D and G as there, and Y the strictly lower part of k·k ⊙ D, one line is computed after the other:

    A = (I + Y diag β)^{-1},     V = A v,     K = A (e^G k)
    error = V − K S,     S ← e^{G_C} S + (e^{G_C − G} k)ᵀ (β error)
    o = e^G q S + (q·k ⊙ D) (β error)

S before each chunk exists until the outputs are computed. Only the inputs are saved; backward
(`kernels.gpu.delta_backward`) computes the rest again. Arithmetic is in fp32; q, k, v and β may be bf16.

The gradient of the decays is a difference of sums over later tokens: where a decay has no effect, as between equal keys
with β = 1, it is as large as their rounding. Equal keys with β near 2 and no decay, which no error leaves, lose about
four times more digits than PyTorch's triangular solve: 1e-5 after 100 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.delta_backward import adjoint_kernel, keys_kernel, queries_kernel, rates_kernel
from kernels.gpu.delta_chunk import (
    AS_IT_IS,
    RATE,
    SINCE,
    decayed,
    inverse_kernel,
    product_kernel,
    rates_of,
    summed,
    weights_kernel,
)
from kernels.gpu.linear import decay_gradient
from kernels.gpu.shared.launch import Config, blocks, contiguous, dot_precision, launch, padded
from kernels.gpu.shared.tiles import store_window, window
from kernels.numerics.first_derivative import first_derivative_only

CHUNK = 32
WIDEST = 128  # key channels per head
# found by compiling ahead of time: no spills
INVERSE = Config.of(warps=4, stages=1, C=CHUNK)
BLOCK = Config.of(warps=4, stages=1, C=CHUNK, W=32)
IN_ORDER = Config.of(warps=4, stages=1, C=CHUNK, W=16)
WIDE_IN_ORDER = Config.of(warps=8, stages=1, C=CHUNK, W=16)  # above 64 key channels


@triton.jit
def states_kernel(
    k,
    beta,
    log_decay,
    keys,
    values,
    errors,
    states,
    tokens,
    heads,
    width,
    chunks,
    KEY: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """keys, values: K and V above. states `[B, H, chunks, k, w]`: S before each chunk."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    mine, wide = tl.program_id(0) * W + tl.arange(0, W), tl.arange(0, K)
    place = states + tl.program_id(1).to(tl.int64) * chunks * KEY * width
    memory = tl.zeros([K, W], tl.float32)
    for i in tl.range(chunks, disable_licm=True):
        here = i * C + tl.arange(0, C)
        store_window(place, wide, width, KEY, mine, width, memory)
        key = window(keys + of_tokens * KEY, here, heads * KEY, tokens, wide, KEY)
        held = tl.dot(key, memory, input_precision=PRECISION)
        error = window(values + of_tokens * width, here, heads * width, tokens, mine, width) - held
        store_window(errors + of_tokens * width, here, heads * width, tokens, mine, width, error)
        total, end = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
        key = window(k + of_tokens * KEY, here, heads * KEY, tokens, wide, KEY) * decayed(end - total)[:, None]
        error *= rates_of(beta, of_tokens, here, heads, tokens)[:, None]
        memory = tl.dot(tl.trans(key), error, memory * decayed(end), input_precision=PRECISION)
        place += KEY * width


@triton.jit
def outputs_kernel(
    q,
    beta,
    log_decay,
    scores,
    errors,
    states,
    out,
    tokens,
    heads,
    width,
    chunks,
    KEY: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    DECAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """scores `[B, T, H, C]`: q·k ⊙ D. W value channels of one chunk."""
    of_tokens = (tl.program_id(1) // heads).to(tl.int64) * tokens * heads + tl.program_id(1) % heads
    here, mine = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(2) * W + tl.arange(0, W)
    place = states + (tl.program_id(1).to(tl.int64) * chunks + tl.program_id(0)) * KEY * width
    result = tl.zeros([C, W], tl.float32)
    for begin in tl.range(0, KEY, W, disable_licm=True):
        channels = begin + tl.arange(0, W)
        query = window(q + of_tokens * KEY, here, heads * KEY, tokens, channels, KEY)
        memory = window(place, channels, width, KEY, mine, width)
        result = tl.dot(query, memory, result, input_precision=PRECISION)
    total, _ = summed(log_decay, of_tokens, here, heads, tokens, C, DECAYS)
    result *= decayed(total)[:, None]
    u = window(errors + of_tokens * width, here, heads * width, tokens, mine, width)
    u *= rates_of(beta, of_tokens, here, heads, tokens)[:, None]
    weights = window(scores + of_tokens * C, here, heads * C, tokens, tl.arange(0, C), C)
    result = tl.dot(weights, u, result, input_precision=PRECISION)
    store_window(out + of_tokens * width, here, heads * width, tokens, mine, width, result)


def refusal(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTH: Tensor | None = None
) -> str | None:
    """Why these kernels don't take such a call; None if they do."""
    if v_BTHw.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16, not {str(v_BTHw.dtype).removeprefix('torch.')}"
    if q_BTHk.shape[-1] > WIDEST:
        return f"it takes heads up to {WIDEST} key channels, not {q_BTHk.shape[-1]}"
    return None


def delta_rule(
    q_BTHk: Tensor, k_BTHk: Tensor, v_BTHw: Tensor, beta_BTH: Tensor, log_decay_BTH: Tensor | None = None
) -> Tensor:
    """o, as `kernels.linear.delta.delta_rule`."""
    out: Tensor = _DeltaRule.apply(q_BTHk, k_BTHk, v_BTHw, beta_BTH, log_decay_BTH)
    return out


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None) -> Tensor:
        q, k, v, beta = contiguous(q, k, v, beta)
        log_decay = None if log_decay is None else log_decay.contiguous()
        rule, out = _Rule(k, v, beta, log_decay), torch.empty_like(v)
        scores = rule.weights(q, k)
        rule.launch(outputs_kernel, rule.tiles, q=q, scores=scores, errors=rule.errors, states=rule.states, out=out)
        ctx.save_for_backward(q, k, v, beta, log_decay)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, beta, log_decay = ctx.saved_tensors
        rule, g = _Rule(k, v, beta, log_decay), grad.contiguous()
        errors, to_u, adjoints = rule.errors, torch.empty_like(rule.errors), torch.empty_like(rule.states)
        direct = rule.product(rule.weights(q, k), g, transposed=True)
        rule.in_order(adjoint_kernel, q=q, keys=rule.keys, g=g, direct=direct, to_u=to_u, adjoints=adjoints)
        g_v = rule.product(rule.inverse, to_u, RATE, transposed=True)
        pull, corrections = rule.weights(g, errors, RATE), rule.weights(g_v, errors, decays=False)
        g_q, g_k = torch.empty_like(rule.keys), torch.empty_like(rule.keys)
        pieces = blocks(k.shape[-1], BLOCK["W"])
        read = {"states": rule.states, "pull": pull}
        rule.launch(queries_kernel, pieces, **read, k=k, g=g, g_q=g_q)
        read |= {"errors": errors, "adjoints": adjoints, "corrections": corrections, "g_v": g_v}
        rule.launch(keys_kernel, pieces, **read, q=q, k=k, g_k=g_k)
        g_beta = rule.rates(to_u, corrections)
        grads = g_q.to(q.dtype), g_k.to(k.dtype), g_v.to(v.dtype), g_beta.to(beta.dtype)
        if log_decay is None:
            return *grads, None
        # a decay scales all that was stored before it: q·∂q − v·∂v, summed from the end
        by_token = (q.double() * g_q).sum(-1, keepdim=True) - (v.double() * g_v).sum(-1, keepdim=True)
        return *grads, decay_gradient(by_token, log_decay[..., None])[..., 0]


class _Rule:
    """What both passes compute, and how their kernels are started. Tensors that it makes are fp32.

    After it is made: `betweens` (Y, with its diagonal), `inverse`, `keys` (A, K), `errors` and `states`.
    """

    def __init__(self, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None) -> None:
        B, T, H, w = v.shape
        self.k, self.beta, self.chunks, self.heads = k, beta, blocks(T, CHUNK), B * H
        self.tiles = blocks(w, BLOCK["W"])
        self.all = {"tokens": T, "heads": H}
        self.decays = {"beta": beta, "log_decay": log_decay, "DECAYS": log_decay is not None}
        self.precision = {"PRECISION": _precision(v.dtype)}
        self.sizes = {"width": w, "chunks": self.chunks, "KEY": k.shape[-1]}
        self.errors = v.new_empty(v.shape, dtype=torch.float32)
        self.states = self.errors.new_empty(B, H, self.chunks, k.shape[-1], w)
        self.betweens = self.weights(k, k)
        self.inverse = torch.empty_like(self.betweens)
        self._start(inverse_kernel, 1, INVERSE, weights=self.betweens, inverse=self.inverse)
        self.keys, values = self.product(self.inverse, k, SINCE), self.product(self.inverse, v)
        self.in_order(states_kernel, keys=self.keys, values=values, errors=self.errors, states=self.states)

    def weights(self, left: Tensor, right: Tensor, scale: int = AS_IT_IS, decays: bool = True) -> Tensor:
        """`(left_t·right_i) D_ti` `[B, T, H, C]`, the rows of right scaled; without D if not `decays`."""
        out = self.errors.new_empty(*left.shape[:3], CHUNK)
        of_call = {"left": left, "right": right, "out": out, "width": left.shape[-1], "SCALE": scale}
        if not decays:
            of_call |= {"log_decay": None, "DECAYS": False}
        self._start(weights_kernel, 1, BLOCK, **of_call)
        return out

    def product(self, matrix: Tensor, x: Tensor, scale: int = AS_IT_IS, transposed: bool = False) -> Tensor:
        """A matrix `[B, T, H, C]`, or its transpose in each chunk, times the scaled rows of x."""
        out, width = self.errors.new_empty(x.shape), x.shape[-1]
        of_call = {"matrix": matrix, "x": x, "out": out, "width": width, "SCALE": scale, "TRANSPOSED": transposed}
        self._start(product_kernel, blocks(width, BLOCK["W"]), BLOCK, **of_call)
        return out

    def rates(self, to_u: Tensor, corrections: Tensor) -> Tensor:
        """∂β."""
        g_beta = self.errors.new_empty(self.beta.shape)
        given = {"errors": self.errors, "to_u": to_u, "weights": self.betweens, "corrections": corrections}
        width = self.errors.shape[-1]
        launch(rates_kernel, (self.chunks, self.heads), BLOCK, **self.all, **given, width=width, g_beta=g_beta)
        return g_beta

    def in_order(self, kernel: Any, **arguments: Any) -> None:
        """Starts a program for each block of value columns, which goes through the chunks."""
        K = padded(self.k.shape[-1])
        config = IN_ORDER if K <= 64 else WIDE_IN_ORDER
        arguments |= self.all | self.decays | self.precision | self.sizes | {"k": self.k, "K": K}
        launch(kernel, (blocks(self.errors.shape[-1], config["W"]), self.heads), config, **arguments)

    def launch(self, kernel: Any, tiles: int, **arguments: Any) -> None:
        """Starts a program for each chunk and block of columns."""
        self._start(kernel, tiles, BLOCK, **self.sizes, **arguments)

    def _start(self, kernel: Any, tiles: int, config: Config, **arguments: Any) -> None:
        arguments = self.all | self.decays | self.precision | arguments
        launch(kernel, (self.chunks, self.heads, tiles), config, **arguments)


def _precision(dtype: torch.dtype) -> str:
    """Of products in fp32; those of bf16 inputs are more exact in one tf32 product than the inputs are."""
    of_fp32 = dot_precision(torch.float32)
    return "tf32" if dtype == torch.bfloat16 and of_fp32 == "tf32x3" else of_fp32
