"""Compares a compiled library with PyTorch's own operations: `python -m kernels.tools.self_test FILE`, exit code 0
where all kernels agree.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from kernels.calls import Call
from kernels.cpu import call as calls
from kernels.cpu.library import load
from kernels.decoding.channels import AXES, Selection, channel_layer_step, selective_layer_step
from kernels.decoding.convolutions import convolution_step, silu_convolution_step
from kernels.decoding.layer import Decays, Gates, layer_step, to_logarithms
from kernels.decoding.memory import Around, compiled_memory_step
from kernels.decoding.rwkv import Parameters, Projections, compiled_rwkv_step
from kernels.decoding.taylor import taylor_step
from kernels.linear import exact as linear
from kernels.registry import KERNELS, Kernel
from kernels.selective import exact as selective
from kernels.tools import steps_in_pytorch as reference

State = dict[str, Tensor]
TOLERANCE = 1e-9  # of the largest entry, in fp64
BF16_TOLERANCE = 2.0**-6  # of the largest entry, under bf16 autocast against fp64


def difference(kernel: Kernel, call: Call, library: ctypes.CDLL) -> float:
    """How far a kernel in C++ is from PyTorch's operations.

    Args:
        kernel: one that has a C++ implementation.
        call: one of its calls.
        library: the compiled library.

    Returns:
        The largest difference of results and gradients, relative to the largest entry of each.
    """
    inputs = call.draw(torch.float64)
    fast, slow = (_results_and_gradients(kernel, call, inputs, each, _sines) for each in (library, None))
    return _apart(fast, slow)


def bf16_difference(kernel: Kernel, call: Call, library: ctypes.CDLL) -> float:
    """How far a kernel in C++ is under bf16 autocast from PyTorch's operations in fp64; inputs have the digits of bf16.

    Args:
        kernel: one that has a C++ implementation for autocast.
        call: one of its calls.
        library: the compiled library.

    Returns:
        As `difference`.
    """
    inputs = [x.bfloat16() for x in call.draw(torch.float64)]
    wanted = _results_and_gradients(kernel, call, [x.double() for x in inputs], None, torch.Tensor.sum)
    with torch.autocast("cpu", torch.bfloat16):
        found = _results_and_gradients(kernel, call, [x.float() for x in inputs], library, torch.Tensor.sum)
    return _apart(found, wanted)


def _apart(fast: list[Tensor], slow: list[Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(fast, slow, strict=True))


def _sines(x: Tensor) -> Tensor:
    """A loss whose gradient differs by entry."""
    return x.sin().sum()


def _results_and_gradients(
    kernel: Kernel,
    call: Call,
    inputs: list[Tensor],
    library: ctypes.CDLL | None,
    loss: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    vars(calls)["library"] = lambda: library
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    found = kernel.load()(*call.arguments(*leaves))
    results = [y for y in (found if isinstance(found, tuple) else (found,)) if isinstance(y, Tensor)]
    return [
        *(y.detach() for y in results),
        *torch.autograd.grad(torch.stack([loss(y.to(inputs[0].dtype)) for y in results]).sum(), leaves),
    ]


def step_difference(step: Callable[..., tuple[Tensor, Tensor | None, State]], *given: object) -> float:
    """How far a step of decoding in C++ is from PyTorch's: of results and of the state after it."""
    with torch.no_grad():
        ours = step(*given)
        with calls.pytorch_only():
            theirs = step(*given)
    pairs = [(ours[0], theirs[0]), (ours[1], theirs[1]), *((ours[2][name], x) for name, x in theirs[2].items())]
    return max(float((a - b).abs().max()) for a, b in pairs if a is not None and b is not None)


def steps() -> Iterator[tuple[str, float]]:
    """The steps of decoding, each with its difference from the second token on."""
    torch.manual_seed(0)
    B, H, k, d, N = 2, 3, 5, 7, 4

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    head = [draw(B, H, 1, k), draw(B, H, 1, k), -draw(B, H, 1, k).abs(), draw(B, H, 1, d), draw(B, H, 1, d)]
    state = linear.exact_step(linear.empty_state(B, H, k, d, draw(0), True), *head)[2]
    yield "linear_step", step_difference(linear.exact_step, state, *head)
    channel = [draw(B, d), -draw(N, d).abs(), draw(B, N), draw(B, N), draw(d), draw(B, d), draw(B, d)]
    state = selective.exact_step(selective.empty_state(B, N, d, draw(0), True), *channel)[2]
    yield "selective_step", step_difference(selective.exact_step, state, *channel)
    yield from steps_in_place()


def steps_in_place() -> Iterator[tuple[str, float]]:
    """The same for the steps that write their state."""
    B, H, k, d, J, R = 2, 3, 6, 7, 4, 2
    C = H * (2 * k + 3 * d)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    with torch.no_grad():
        token = draw(B, H, k), draw(B, H, k), draw(B, H, d), -draw(B, H, k).abs(), draw(B, H).sigmoid()
        around = Around(1e-6, 0.5, (draw(3), draw(3)), draw(B, H * d), draw(d), False, "rms", "silu", 1e-5)
        S = draw(B, H, k, d)
        wanted = reference.memory(S, *token, around)
        yield "memory_step", apart(compiled_memory_step(S, *token, around), S, wanted)
        layer = draw(B, C), Decays(draw(B, H * k), draw(H * k), 16.0), Gates(draw(B, R), draw(R, C), draw(H, d).abs())
        state = linear.empty_state(B, H, k, d, draw(0), True)
        state = reference.layer(state, *layer)[1]
        y, after = reference.layer(state, *layer)
        found = layer_step(state, *layer)
        to_logarithms(state)
        yield "feature_step", max(apart(found, state[name], (y, after[name])) for name in after)
        past, given = draw(B, J - 1, d), (draw(B, d), draw(J, d), draw(d))
        wanted = reference.silu_convolution(past, *given)
        yield "silu_convolution_step", apart(silu_convolution_step(past, *given), past, wanted)
        h, x, weight, eps = draw(B, R), draw(B, d), draw(3 * R, d), (1e-5, 1e-5, 1e-5)
        wanted = reference.convolution(h, x, weight, eps)
        yield "convolution_step", apart(convolution_step(h, x, weight, eps), h, wanted)
        yield from steps_of_channels(draw)


def steps_of_channels(draw: Callable[..., Tensor]) -> Iterator[tuple[str, float]]:
    """Those of the priors with weights per channel, of RWKV-7, and of Taylor's polynomial."""
    B, D, H, d, N, r, R = 2, 9, 3, 7, 4, 2, 2
    E = H * d
    x, z, gates = draw(B, D), draw(B, 3 * E), Gates(draw(B, R), draw(R, 3 * E), draw(H, d).abs())
    selection = Selection(draw(r, D), draw(E, r), draw(E), draw(2 * N, D), draw(N, E), draw(E))
    state = selective.empty_state(B, N, E, draw(0), True)
    state = reference.selective_layer(state, x, z, H, selection, gates)[1]
    wanted, after = reference.selective_layer(state, x, z, H, selection, gates)
    y = selective_layer_step(state, x, z, H, selection, gates)
    to_logarithms(state, AXES)
    yield "selective_layer_step", max(apart(y, state[name], (wanted, after[name])) for name in after)
    z, gates = draw(B, 5 * E), Gates(draw(B, R), draw(R, 5 * E), draw(H, d).abs())
    state = {name: draw(B, E) for name in ("n_BE", "m_BE", "f_BE")}
    wanted, after = reference.channel_layer(state, z, H, gates)
    y = channel_layer_step(state, z, H, gates)
    yield "channel_layer_step", max(apart(y, state[name], (wanted, after[name])) for name in after)
    S, widths = draw(B, H, d, N), (H * d, H * d, H * N, H * d, H * d, H * N)
    token = Projections(*(draw(B, width) for width in widths))
    parameters = Parameters(0.6, 1e-12, 1e-5, *(draw(width) for width in (*[H * d] * 5, H * N, H * N)))
    expected = reference.rwkv(S, token, parameters)
    yield "rwkv_step", apart(compiled_rwkv_step(S, token, parameters), S, expected)
    sums, z, turn = draw(B, H, 28, 7).abs(), draw(B, 3 * H * 6), (draw(3), draw(3))
    expected = reference.taylor(sums, z, turn)
    yield "taylor_step", apart(taylor_step(sums, z, turn), sums, expected)


def apart(y: Tensor | None, state: Tensor, wanted: tuple[Tensor, Tensor]) -> float:
    """The largest difference of a result and a written state; infinite where the library did not take the call."""
    if y is None:
        return float("inf")
    return max(float((y - wanted[0]).abs().max()), float((state - wanted[1]).abs().max()))


def main() -> None:
    """Prints the first kernel that differs."""
    library = load(Path(sys.argv[1]))
    vars(calls)["library"] = lambda: library
    for name, error in steps():
        if not error <= TOLERANCE:
            sys.exit(f"{name}: off by {error:.2g}")
    for kernel in KERNELS:
        for call in kernel.calls if kernel.cpp else ():
            error = difference(kernel, call, library)
            if not error <= TOLERANCE:
                sys.exit(f"{kernel.name}, {call.name}: off by {error:.2g}")
            error = bf16_difference(kernel, call, library) if kernel.under_autocast else 0.0
            if not error <= BF16_TOLERANCE:
                sys.exit(f"{kernel.name}, {call.name}, bf16: off by {error:.2g}")


if __name__ == "__main__":
    main()
