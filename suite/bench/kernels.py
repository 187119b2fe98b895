"""Contests of kernels: each beside the form one writes down first and beside others' code that can be installed
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

from kernels.attention import softmax_read
from kernels.channelwise import channelwise_read
from kernels.free_energy import free_energy_read
from kernels.hyper.lag_mixing import LagMixing, lag_mix
from kernels.lag_layout import Layout
from kernels.linear.sums import decayed_sums
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums
from suite.bench import competitors, naive
from suite.bench.comparison import Contest, Demand, both_ways
from suite.bench.timing import Work

BATCH, HEADS, KEY = 1, 4, 64
SCAN_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
COMPILED_AT = 1024  # tokens at which PyTorch's compiler is a peer: it takes its time
PRICES = {256: 1.45, 1024: 1.25, 2048: 1.15, 4096: 1.10}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _compiled(T: int, function: competitors.Function, *inputs: Tensor) -> dict[str, Work]:
    return {"compiled cumulative sum": both_ways(competitors.compiled(function), *inputs)} if T == COMPILED_AT else {}


def free_energy(T: int, value: int) -> Mapping[str, Work]:
    q, k, v = (normal(BATCH, T, HEADS, w, seed=i) for i, w in enumerate((KEY, KEY, value)))
    beta, wide = torch.full((HEADS, value), 1.9), normal(BATCH, T, HEADS, KEY, seed=2)
    works = {
        "ours": both_ways(partial(free_energy_read, causal=True), q, k, v, beta),
        "sdpa": both_ways(naive.attention, q, k, wide),
        "two sdpa calls": both_ways(naive.free_energy_by_two_calls, q, k, v, beta),
        "our softmax_read": both_ways(partial(softmax_read, causal=True), q, k, wide),
    }
    if T == COMPILED_AT:
        works["compiled squares"] = both_ways(competitors.compiled(naive.free_energy_by_squares), q, k, v, beta)
        works["flex attention"] = both_ways(competitors.flex_attention, q, k, wide)
    return works


def linear(T: int, decay: bool, cumulative: bool) -> Mapping[str, Work]:
    q, k = (softplus(normal(BATCH, T, HEADS, 32, seed=i)) for i in range(2))
    v = normal(BATCH, T, HEADS, 32, seed=2)
    logs = [torch.nn.functional.logsigmoid(normal(BATCH, T, HEADS, seed=3)) / 16] if decay else []
    works = {"ours": both_ways(lambda q, k, v, *a: decayed_sums(q, k, v, *(g[..., None] for g in a)), q, k, v, *logs)}
    if cumulative:
        works["cumulative sum"] = both_ways(naive.linear_by_cumulative_sum, q, k, v, *logs)
    for name, function in (competitors.of_scalar_decay() if decay else competitors.of_linear()).items():
        works[name] = both_ways(function, q, k, v, *logs)
    return works


def selective_of_one(delta: Tensor, a: Tensor, b: Tensor, c: Tensor, v: Tensor) -> Tensor:
    return selective_sums(delta, a, b, c, v[:, :, None])[:, :, 0]


def selective(T: int) -> Mapping[str, Work]:
    E, N = 128, 16
    delta, v = softplus(normal(BATCH, T, E, seed=0) - 3), normal(BATCH, T, E, seed=1)
    b, c = (softplus(normal(BATCH, T, N, seed=i)) for i in (2, 3))
    a = -torch.arange(1.0, N + 1)[:, None].expand(N, E).contiguous()
    return {
        "ours": both_ways(selective_of_one, delta, a, b, c, v),
        "step by step": both_ways(naive.selective_by_steps, delta, a, b, c, v),
        **{name: both_ways(function, delta, a, b, c, v) for name, function in competitors.of_selective().items()},
    }


def channelwise(T: int) -> Mapping[str, Work]:
    k, v = normal(BATCH, T, 256, seed=0), normal(BATCH, T, 256, seed=1)
    works = {
        "ours": both_ways(lambda k, v: channelwise_read(k, v[:, :, None])[:, :, 0], k, v),
        "cumulative sum": both_ways(naive.channelwise_by_cumulative_sum, k, v),
    }
    return works | _compiled(T, naive.channelwise_by_cumulative_sum, k, v)


def diagonal(T: int) -> Mapping[str, Work]:
    a, x = torch.sigmoid(normal(8, T, 16, seed=0) + 3), normal(8, T, 16, seed=1)
    works = {
        "ours": both_ways(diagonal_scan, a, x),
        "cumulative sum": both_ways(naive.diagonal_by_cumulative_sum, a, x),
    }
    return works | _compiled(T, naive.diagonal_by_cumulative_sum, a, x)


def lag_mixing(T: int) -> Mapping[str, Work]:
    heads, width, rank, layout = 2, 64, 4, Layout(True, True, T)
    q, k = (normal(2, heads, BATCH, T, 16, seed=i) for i in range(2))
    v = normal(heads, BATCH, T, width, seed=2)
    tables = [0.02 * normal(heads, T, rank, seed=i) for i in range(3, 9)]
    diagonals = [torch.zeros(heads, T) for _ in range(3)]
    controls = [torch.sigmoid(normal(heads, BATCH, T, rank, seed=i)) for i in range(9, 12)]

    def mixings(rest: Sequence[Tensor]) -> list[LagMixing]:
        return [LagMixing(rest[2 * j], rest[2 * j + 1], rest[6 + j], rest[9 + j]) for j in range(3)]

    def ours(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        *before, behind = mixings(rest)
        return lag_mix(q, k, v, before, behind, layout)

    def dense(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        *before, behind = mixings(rest)
        return naive.lag_mix_by_squares(q, k, v, before, behind)

    inputs = (q, k, v, *tables, *diagonals, *controls)
    attention = [normal(BATCH, T, heads, width, seed=i) for i in range(3)]
    return {
        "ours": both_ways(ours, *inputs),
        "dense": both_ways(dense, *inputs),
        "sdpa": both_ways(naive.attention, *attention),
    }


def contests(lengths: Sequence[int]) -> Iterator[Contest]:
    """All kernels at the given lengths, or each at those its demands are about."""
    half, full = "free-energy softmax read, d_k = 2 d_v", "free-energy softmax read, d_v = d_k"
    for T in lengths or PRICES:
        yield Contest(
            half,
            T,
            partial(free_energy, T, KEY // 2),
            (Demand("price", "sdpa", PRICES.get(T)),),
            f"{HEADS} heads, d_k {KEY}",
        )
    for T in lengths or (1024, 2048):
        price = Demand("price", "sdpa", 2.0 if T >= 1024 else None)
        yield Contest(full, T, partial(free_energy, T, KEY), (price,), f"{HEADS} heads, d_k {KEY}")
    for decay, kind in ((False, "linear scan"), (True, "scalar-decay scan")):
        for T in lengths or SCAN_LENGTHS:
            demands = (
                (Demand("speed", "cumulative sum", 20.0), Demand("memory", "cumulative sum", 0.1)) if T == 1024 else ()
            )
            yield Contest(kind, T, partial(linear, T, decay, T <= 1024), demands, f"{HEADS} heads, d_k = d_v = 32")
    for T in lengths or (256, 1024):
        speed = Demand("speed", "step by step", 8.0 if T == 256 else None)
        yield Contest("selective scan", T, partial(selective, T), (speed,), "E 128, N 16")
        yield Contest("AFT read", T, partial(channelwise, T), (Demand("speed", "cumulative sum", 1.0),), "E 256")
        yield Contest("diagonal scan", T, partial(diagonal, T), (Demand("speed", "cumulative sum", 2.0),), "B 8, R 16")
    for T in lengths or (1024, 2048):
        demands = (Demand("speed", "dense"), Demand("memory", "dense"))
        price = Demand("price", "sdpa")
        yield Contest(
            "lag mixing of HyperGLU", T, partial(lag_mixing, T), (*demands, price), "2 heads, r 4, two score sets"
        )
