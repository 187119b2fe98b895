"""Comparisons of kernels: each with a naive reference implementation and with other projects' code, where installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, softplus

from kernels.attention import softmax_read
from kernels.channelwise import channelwise_read
from kernels.free_energy import free_energy_read
from kernels.hyper.lag_mixing import LagMixing, lag_mix
from kernels.linear.channel_delta import channel_delta_rule
from kernels.linear.delta import delta_rule
from kernels.linear.sums import decayed_sums
from kernels.numerics.lag_layout import Layout
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums
from suite.bench import competitors, naive
from suite.bench.comparison import Comparison, Requirement, forward_backward
from suite.bench.products import product_comparisons
from suite.bench.timing import Workload

BATCH, HEADS, KEY = 1, 4, 64
SCAN_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
COMPILED_AT = 1024  # the only length at which torch.compile is timed: compiling takes up to a minute
#: The longest time allowed relative to PyTorch's attention, by length.
PRICES = {256: 1.45, 1024: 1.25, 2048: 1.15, 4096: 1.10}


#: Required speed over the states of all tokens at 1,024 of them, by scan.
STATE_SPEEDS = {"linear scan": 20.0, "scalar-decay scan": 30.0}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _compiled(T: int, function: competitors.Function, *inputs: Tensor) -> dict[str, Workload]:
    return (
        {"compiled cumulative sum": forward_backward(competitors.compiled(function), *inputs)}
        if T == COMPILED_AT
        else {}
    )


def free_energy(T: int, value: int) -> Mapping[str, Workload]:
    q, k, v = (normal(BATCH, T, HEADS, w, seed=i) for i, w in enumerate((KEY, KEY, value)))
    beta, wide = torch.full((HEADS, value), 1.9), normal(BATCH, T, HEADS, KEY, seed=2)
    workloads = {
        "ours": forward_backward(partial(free_energy_read, causal=True), q, k, v, beta),
        "sdpa": forward_backward(naive.attention, q, k, wide),
        "two sdpa calls": forward_backward(naive.free_energy_with_two_calls, q, k, v, beta),
        "our softmax_read": forward_backward(partial(softmax_read, causal=True), q, k, wide),
    }
    if T == COMPILED_AT:
        workloads["compiled squares"] = forward_backward(competitors.compiled(naive.dense_free_energy), q, k, v, beta)
        workloads["flex attention"] = forward_backward(competitors.flex_attention, q, k, wide)
    return workloads


def linear(T: int, decay: bool, cumulative: bool) -> Mapping[str, Workload]:
    q, k = (softplus(normal(BATCH, T, HEADS, 32, seed=i)) for i in range(2))
    v = normal(BATCH, T, HEADS, 32, seed=2)
    logs = [logsigmoid(normal(BATCH, T, HEADS, seed=3)) / 16] if decay else []
    workloads = {
        "ours": forward_backward(lambda q, k, v, *a: decayed_sums(q, k, v, *(g[..., None] for g in a)), q, k, v, *logs)
    }
    if cumulative:
        workloads["cumulative sum"] = forward_backward(naive.linear_by_cumulative_sum, q, k, v, *logs)
    for name, function in (competitors.scalar_decay_sums() if decay else competitors.linear_sums()).items():
        workloads[name] = forward_backward(function, q, k, v, *logs)
    return workloads


def selective_width_one(delta: Tensor, a: Tensor, b: Tensor, c: Tensor, v: Tensor) -> Tensor:
    return selective_sums(delta, a, b, c, v[:, :, None])[:, :, 0]


def selective(T: int) -> Mapping[str, Workload]:
    E, N = 128, 16
    delta, v = softplus(normal(BATCH, T, E, seed=0) - 3), normal(BATCH, T, E, seed=1)
    b, c = (softplus(normal(BATCH, T, N, seed=i)) for i in (2, 3))
    a = -torch.arange(1.0, N + 1)[:, None].expand(N, E).contiguous()
    return {
        "ours": forward_backward(selective_width_one, delta, a, b, c, v),
        "step by step": forward_backward(naive.selective_step_by_step, delta, a, b, c, v),
        **{
            name: forward_backward(function, delta, a, b, c, v)
            for name, function in competitors.selective_scans().items()
        },
    }


def channelwise(T: int) -> Mapping[str, Workload]:
    k, v = normal(BATCH, T, 256, seed=0), normal(BATCH, T, 256, seed=1)
    workloads = {
        "ours": forward_backward(lambda k, v: channelwise_read(k, v[:, :, None])[:, :, 0], k, v),
        "cumulative sum": forward_backward(naive.channelwise_by_cumulative_sum, k, v),
    }
    return workloads | _compiled(T, naive.channelwise_by_cumulative_sum, k, v)


def diagonal(T: int) -> Mapping[str, Workload]:
    a, x = torch.sigmoid(normal(8, T, 16, seed=0) + 3), normal(8, T, 16, seed=1)
    workloads = {
        "ours": forward_backward(diagonal_scan, a, x),
        "cumulative sum": forward_backward(naive.diagonal_by_cumulative_sum, a, x),
    }
    return workloads | _compiled(T, naive.diagonal_by_cumulative_sum, a, x)


def delta(T: int) -> Mapping[str, Workload]:
    inputs = of_delta_rule(normal(BATCH, T, HEADS, seed=4), 32)
    return {
        "ours": forward_backward(delta_rule, *inputs),
        "plain chunks": forward_backward(naive.delta_in_plain_chunks, *inputs),
    }


def channel_delta(T: int) -> Mapping[str, Workload]:
    inputs = of_delta_rule(normal(BATCH, T, HEADS, 32, seed=4), 32)
    return {
        "ours": forward_backward(channel_delta_rule, *inputs),
        "step by step": forward_backward(naive.channel_delta_step_by_step, *inputs),
    }


def of_delta_rule(gate: Tensor, width: int) -> tuple[Tensor, ...]:
    """Inputs of a delta rule.

    Args:
        gate: of the decays, `[B, T, H]` or `[B, T, H, width]`.
        width: channels of a head.

    Returns:
        Queries, keys, values `[B, T, H, width]`, β `[B, T, H]`, and the logarithm of the decays.
    """
    B, T, H, *_ = gate.shape
    q, k = (normalize(normal(B, T, H, width, seed=i), dim=-1) for i in range(2))
    return q, k, normal(B, T, H, width, seed=2), torch.sigmoid(normal(B, T, H, seed=3)), logsigmoid(gate + 3)


def of_lag_mixing(T: int, batch: int, heads: int) -> tuple[Tensor, ...]:
    """Inputs of lag mixing with two score sets, as `lag_mixings` takes them apart.

    Args:
        T: tokens.
        batch: sequences.
        heads: of each.

    Returns:
        Queries and keys `[2, H, B, T, 16]`, values `[H, B, T, 64]`, six tables of rank 4, three diagonals, three
        controls.
    """
    rank = 4
    q, k = (normal(2, heads, batch, T, 16, seed=i) for i in range(2))
    tables = [0.02 * normal(heads, T, rank, seed=i) for i in range(3, 9)]
    diagonals = [torch.zeros(heads, T) for _ in range(3)]
    controls = [torch.sigmoid(normal(heads, batch, T, rank, seed=i)) for i in range(9, 12)]
    return q, k, normal(heads, batch, T, 64, seed=2), *tables, *diagonals, *controls


def lag_mixings(rest: Sequence[Tensor]) -> list[LagMixing]:
    """The three mixings from the inputs that follow the values.

    Args:
        rest: tables, diagonals and controls of `of_lag_mixing`.

    Returns:
        Two mixings before the activation, and the one after it.
    """
    return [LagMixing(rest[2 * j], rest[2 * j + 1], rest[6 + j], rest[9 + j]) for j in range(3)]


def mixed_by_lag(layout: Layout, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
    """The read of HyperGLU from the inputs of `of_lag_mixing`.

    Args:
        layout: of the lags.
        q: queries.
        k: keys.
        v: values.
        rest: tables, diagonals and controls.

    Returns:
        `[H, B, T, 64]`.
    """
    *before, after = lag_mixings(rest)
    return lag_mix(q, k, v, before, after, layout)


def lag_mixing(T: int) -> Mapping[str, Workload]:
    heads, inputs = 2, of_lag_mixing(T, BATCH, 2)

    def dense(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        *before, after = lag_mixings(rest)
        return naive.dense_lag_mix(q, k, v, before, after)

    attention = [normal(BATCH, T, heads, 64, seed=i) for i in range(3)]
    return {
        "ours": forward_backward(partial(mixed_by_lag, Layout(True, True, T)), *inputs),
        "dense": forward_backward(dense, *inputs),
        "sdpa": forward_backward(naive.attention, *attention),
    }


def kernel_comparisons(lengths: Sequence[int]) -> Iterator[Comparison]:
    """All kernels at the given lengths; without any, each at the lengths that have requirements."""
    half, full = "free-energy softmax read, d_k = 2 d_v", "free-energy softmax read, d_v = d_k"
    of_heads = f"{HEADS} heads, d_k = d_v = 32"
    for T in lengths or PRICES:
        yield Comparison(
            half,
            T,
            partial(free_energy, T, KEY // 2),
            (Requirement("price", "sdpa", PRICES.get(T)),),
            f"{HEADS} heads, d_k {KEY}",
        )
    for T in lengths or (1024, 2048):
        price = Requirement("price", "sdpa", 2.0 if T >= 1024 else None)
        yield Comparison(full, T, partial(free_energy, T, KEY), (price,), f"{HEADS} heads, d_k {KEY}")
    for decay, kind in ((False, "linear scan"), (True, "scalar-decay scan")):
        for T in lengths or SCAN_LENGTHS:
            requirements = (
                (
                    Requirement("speed", "cumulative sum", STATE_SPEEDS[kind]),
                    Requirement("memory", "cumulative sum", 0.1),
                )
                if T == 1024
                else ()
            )
            yield Comparison(kind, T, partial(linear, T, decay, T <= 1024), requirements, of_heads)
    for T in lengths or (256, 1024):
        speed = Requirement("speed", "step by step", 8.0 if T == 256 else None)
        yield Comparison("selective scan", T, partial(selective, T), (speed,), "E 128, N 16")
        yield Comparison(
            "AFT read", T, partial(channelwise, T), (Requirement("speed", "cumulative sum", 1.0),), "E 256"
        )
        yield Comparison(
            "diagonal scan", T, partial(diagonal, T), (Requirement("speed", "cumulative sum", 2.0),), "B 8, R 16"
        )
    for T in lengths or (256, 1024, 4096):
        speed = Requirement("speed", "plain chunks", 5.0)
        yield Comparison("gated delta rule", T, partial(delta, T), (speed,), of_heads)
    for T in lengths or (256, 1024):
        speed = Requirement("speed", "step by step")
        yield Comparison("delta rule with a decay per channel", T, partial(channel_delta, T), (speed,), of_heads)
    for T in lengths or (1024, 2048):
        requirements = (Requirement("speed", "dense"), Requirement("memory", "dense"))
        price = Requirement("price", "sdpa")
        yield Comparison(
            "lag mixing of HyperGLU", T, partial(lag_mixing, T), (*requirements, price), "2 heads, r 4, two score sets"
        )
    yield from product_comparisons(lengths)
