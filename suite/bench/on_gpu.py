"""Comparisons of kernels on a GPU: with PyTorch's fused attention, with our own PyTorch implementations, and with a
copy of the inputs. They have no required ratios yet, because they have not been run on a GPU.

Each has 16,384 tokens in all, in sequences of the given length.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from kernels.free_energy import free_energy_read
from kernels.implementations import VARIABLE
from kernels.linear.delta import delta_rule
from kernels.linear.sums import decayed_sums
from kernels.numerics.lag_layout import Layout
from kernels.scan import diagonal_scan
from kernels.selective.sums import selective_sums
from suite.bench import naive
from suite.bench.comparison import Comparison, Requirement, forward_backward
from suite.bench.kernels import mixed_by_lag, normal, of_delta_rule, of_lag_mixing
from suite.bench.timing import Workload

TOKENS, HEADS = 16_384, 8
LENGTHS = (1024, 4096, 16_384)
Function = Callable[..., Tensor | tuple[Tensor, ...]]


def gpu_comparisons(lengths: Sequence[int], device: torch.device) -> Iterator[Comparison]:
    """All comparisons at the given lengths.

    Args:
        lengths: tokens per sequence; none: 1,024, 4,096 and 16,384.
        device: where everything runs.

    Yields:
        Comparisons with the figures `price` against `sdpa` or `copy`, and `speed` over `pytorch`.
    """
    for T in lengths or LENGTHS:
        for key in (64, 128):
            about = f"bf16, {HEADS} heads, d_k {key}, d_v {key // 2}"
            yield _comparison(
                "free-energy softmax read", T, partial(_free_energy, T, key, device), "sdpa", about, device
            )
        yield _comparison("lag mixing of HyperGLU", T, partial(_lag_mixing, T, device), "sdpa", "fp32, rank 4", device)
        for name, scan in _SCANS.items():
            yield _comparison(name, T, partial(scan, T, device), "copy", "fp32", device)


def _comparison(
    name: str, T: int, build: Callable[[], Mapping[str, Workload]], against: str, about: str, device: torch.device
) -> Comparison:
    figures = Requirement("price", against), Requirement("speed", "pytorch")
    return Comparison(name, T, build, figures, about, device)


def _batch(T: int) -> int:
    return max(1, TOKENS // T)


def _workloads(function: Function, *inputs: Tensor) -> dict[str, Workload]:
    """Our function with Triton, as the settings have it, and without; and two copies of its inputs, since a forward and
    a backward pass read each of them twice and write its gradient.
    """
    ours = forward_backward(function, *inputs)

    def pytorch() -> None:
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = "off"
        try:
            ours()
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before

    return {"ours": ours, "pytorch": pytorch, "copy": lambda: [x.clone() for x in inputs for _ in range(2)]}


def _free_energy(T: int, key: int, device: torch.device) -> Mapping[str, Workload]:
    shapes = (_batch(T), T, HEADS, key), (_batch(T), T, HEADS, key), (_batch(T), T, HEADS, key // 2)
    q, k, v = (normal(*shape, seed=i).to(device, torch.bfloat16) for i, shape in enumerate(shapes))
    beta = torch.full((HEADS, key // 2), 1.9, device=device, dtype=torch.bfloat16)
    return {
        **_workloads(partial(free_energy_read, causal=True), q, k, v, beta),
        "sdpa": forward_backward(naive.attention, q, k, torch.cat([v, v], -1)),
    }


def _lag_mixing(T: int, device: torch.device) -> Mapping[str, Workload]:
    inputs = [x.to(device) for x in of_lag_mixing(T, _batch(T), HEADS)]
    attention = [normal(_batch(T), T, HEADS, 64, seed=i).to(device) for i in range(3)]
    return {
        **_workloads(partial(mixed_by_lag, Layout(True, True, T)), *inputs),
        "sdpa": forward_backward(naive.attention, *attention),
    }


def _linear(T: int, device: torch.device, decays: bool) -> Mapping[str, Workload]:
    q, k, v = (normal(_batch(T), T, HEADS, 64, seed=i).to(device) for i in range(3))
    logs = [logsigmoid(normal(_batch(T), T, HEADS, 1, seed=3)).to(device) / 16] if decays else []
    return _workloads(decayed_sums, softplus(q), softplus(k), v, *logs)


def _selective(T: int, device: torch.device) -> Mapping[str, Workload]:
    B, E, N = _batch(T), 512, 16
    delta, v = softplus(normal(B, T, E) - 3).to(device), normal(B, T, 1, E, seed=1).to(device)
    b, c = (softplus(normal(B, T, N, seed=i)).to(device) for i in (2, 3))
    a = -torch.arange(1.0, N + 1, device=device)[:, None].expand(N, E).contiguous()
    return _workloads(selective_sums, delta, a, b, c, v)


def _diagonal(T: int, device: torch.device) -> Mapping[str, Workload]:
    a, x = torch.sigmoid(normal(_batch(T), T, 512) + 3).to(device), normal(_batch(T), T, 512, seed=1).to(device)
    return _workloads(diagonal_scan, a, x)


def _delta(T: int, device: torch.device) -> Mapping[str, Workload]:
    inputs = of_delta_rule(normal(_batch(T), T, HEADS, seed=4), 64)
    return _workloads(delta_rule, *(x.to(device) for x in inputs))


_SCANS: Mapping[str, Callable[[int, torch.device], Mapping[str, Workload]]] = {
    "linear scan": partial(_linear, decays=False),
    "scalar-decay scan": partial(_linear, decays=True),
    "selective scan": _selective,
    "diagonal scan": _diagonal,
    "gated delta rule": _delta,
}
