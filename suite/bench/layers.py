"""Comparisons of whole mixer layers with equal parameter counts, and of their decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from backbones.mixers import registry
from backbones.mixers.base import Context, Mixer, State
from backbones.mixers.errors import MixerError
from kernels.cpu import limits
from kernels.cpu.call import recorded
from suite.bench import naive
from suite.bench.comparison import Comparison, Requirement, forward_backward
from suite.bench.timing import Workload
from suite.errors import UserError

DIM, HEADS = 256, 4
EARLY, LATE, STEPS = 64, 4096, 16
#: Sequences that are decoded together.
BATCHES = (1, 16)
#: The competitor that reads what a step must read, and how many times its time a step with a constant state may take.
ONE_READ, READS = "one read of weights and state", 4.0
#: The longest time allowed relative to a softmax layer, by mixer and length.
PRICES: Mapping[tuple[str, int], float] = {
    ("fem", 256): 1.20,
    ("fem", 1024): 1.10,
    ("fem, no convolution", 1024): 1.25,
    ("hyperglu", 1024): 3.5,
    ("hyperglu", 2048): 3.5,
}
#: Required speed of HyperGLU's layer over its dense implementation, by length.
DENSE_SPEEDS: Mapping[int, float] = {1024: 3.0, 2048: 6.0}
#: Rows of a chunk of the authors' HyperGLU: their default, and others, of which the best counts; and the required speed
#: over them.
DEFAULT_CHUNK, OTHER_CHUNKS = 1024, (64, 128, 256, 512)
CHUNK_SPEEDS: Mapping[int, float] = {DEFAULT_CHUNK: 6.0, **dict.fromkeys(OTHER_CHUNKS, 3.5)}
#: The required speed of FEM's layers over the authors' states of every token, by mixer; None where they publish none.
STATE_SPEEDS: Mapping[str, float | None] = {"fem-linear": 30.0, "fem-simple-gla": 30.0, "fem-gla": None}
STATES_AT = 1024  # tokens
#: The competitors that are ours with the authors' implementation in place of our kernel.
STATES = "cumulative sum"
#: Lengths at which a mixer is timed, where there are others than `LENGTH`.
LENGTH, LENGTHS = 1024, {"fem": (256, 1024), "hyperglu": (1024, 2048)}


def build_layer(name: str, length: int, **options: object) -> Mixer:
    """A causal layer with as many parameters as softmax attention of width 256."""
    cls = registry.get(name)
    heads = min(HEADS, cls.Config.model_fields["heads"].default) if "heads" in cls.Config.model_fields else HEADS
    config = cls.size(cls.Config(causal=True, heads=heads, **options), DIM, length, 4 * DIM * DIM)
    torch.manual_seed(0)
    mixer = cls(config, DIM, length)
    mixer.reset_parameters()
    return mixer


def timed_mixers(mixers: Sequence[str]) -> list[str]:
    """The requested mixers, or all built-in causal mixers that need only their input."""
    eligible = [
        name
        for name in registry.names()
        if registry.origin(name) == "built-in"
        and registry.get(name).capabilities.causal
        and not registry.get(name).capabilities.needs
    ]
    for name in mixers:
        if name not in eligible and ":" not in name:
            raise UserError(
                f"bench: {name!r} is not a causal mixer that needs only its input; those are {', '.join(eligible)}"
            )
    return list(mixers) or eligible


def layer_forward_backward(mixer: Mixer, x_BTD: Tensor) -> Workload:
    names, parameters = zip(*mixer.named_parameters(), strict=True)

    def function(x_BTD: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x_BTD, Context()))
        return out

    return forward_backward(function, x_BTD, *parameters)


def layer(name: str, length: int) -> Mapping[str, Workload]:
    mixer, _, without = name.partition(", no ")
    options = {without: False} if without else {}
    x_BTD = torch.randn(1, length, DIM, generator=torch.Generator().manual_seed(1))
    ours = layer_forward_backward(build_layer(mixer, length, **options), x_BTD)
    workloads = {"ours": ours, "softmax": layer_forward_backward(build_layer("softmax", length), x_BTD)}
    if name == "hyperglu":
        workloads["dense"] = with_lag_mixing(ours, naive.dense_lag_mix)
        workloads |= {
            chunks(rows): with_lag_mixing(ours, partial(naive.lag_mix_in_chunks, chunk=rows)) for rows in CHUNK_SPEEDS
        }
    if name in STATE_SPEEDS and length <= STATES_AT:
        workloads[STATES] = replacing(
            ours, "kernels.linear.free_energy.decayed_sums", naive.decayed_sums_by_cumulative_sum
        )
    return workloads


def chunks(rows: int) -> str:
    """What reports call the authors' HyperGLU with so many rows of a chunk."""
    return f"chunks of {rows:,}{' (default)' if rows == DEFAULT_CHUNK else ''}"


def replacing(workload: Workload, name: str, function: Callable[..., Tensor]) -> Workload:
    """The same layer, with another implementation of a function that it calls."""

    def replaced() -> object:
        with patch(name, function):
            return workload()

    return replaced


def with_lag_mixing(workload: Workload, function: Callable[..., Tensor]) -> Workload:
    """The same layer of HyperGLU, with another implementation of its lag mixing."""

    def lag_mix(q: Tensor, k: Tensor, v: Tensor, before: Any, after: Any, *_: object) -> Tensor:
        return function(q, k, v, before, after)

    return replacing(workload, "backbones.mixers.hyper.hypermlp.lag_mix", lag_mix)


def requirements_of(variant: str, length: int) -> Iterator[Requirement]:
    """The figures of a layer at a length."""
    yield Requirement("price", "softmax", PRICES.get((variant, length)))
    if variant == "hyperglu":
        yield Requirement("speed", "dense", DENSE_SPEEDS.get(length))
        yield Requirement("memory", "dense", 0.1 if length in DENSE_SPEEDS else None)
        for rows, bound in CHUNK_SPEEDS.items():
            yield Requirement("speed", chunks(rows), bound if length in DENSE_SPEEDS else None)
    if variant in STATE_SPEEDS and length <= STATES_AT:
        yield Requirement("speed", STATES, STATE_SPEEDS[variant] if length == STATES_AT else None)


def layer_comparisons(mixers: Sequence[str], lengths: Sequence[int]) -> Iterator[Comparison]:
    for name in timed_mixers(mixers):
        for length in lengths or LENGTHS.get(name, (LENGTH,)):
            for variant in [name, "fem, no convolution"] if name == "fem" else [name]:
                yield Comparison(
                    variant,
                    length,
                    partial(layer, variant, length),
                    tuple(requirements_of(variant, length)),
                    f"D {DIM}, equal parameters",
                )


def state_after(mixer: Mixer, position: int, batch: int = 1) -> State:
    """The decoding state of each sequence after `position` random tokens."""
    state = mixer.init_state(batch, LATE + STEPS)
    for x_BD in torch.randn(position, batch, mixer.dim, generator=torch.Generator().manual_seed(2)):
        _, state = mixer.step(x_BD, state)
    return state


def read_once(mixer: Mixer, state: State) -> Workload | None:
    """Reads as many bytes as the weights and the state have from memory, once a token: what decoding a model cannot do
    without whose layers exceed the caches together.
    """
    held = [*mixer.parameters(), *mixer.buffers(), *state.tensors.values()]
    found = limits.reading(sum(x.numel() * x.element_size() for x in held) // 4)
    if found is None:
        return None

    def steps() -> None:
        for _ in range(STEPS):
            found[0]()

    return steps


@torch.no_grad()
def decoding(name: str, batch: int) -> Mapping[str, Workload]:
    mixer, x_BD = build_layer(name, LATE + STEPS), torch.randn(batch, DIM)

    def decode_from(start: State) -> Workload:
        @torch.no_grad()
        def steps() -> None:
            # growing caches are overwritten from the position onwards: every call does the same work
            state = State(dict(start.tensors), start.position)
            for _ in range(STEPS):
                _, state = mixer.step(x_BD, state)

        return steps

    late = state_after(mixer, LATE, batch)
    workloads = {"ours": decode_from(late), "early": decode_from(state_after(mixer, EARLY, batch))}
    reading = read_once(mixer, late)
    return workloads if reading is None else {**workloads, ONE_READ: reading}


@torch.no_grad()
def compiled_steps(name: str) -> str:
    """Which compiled functions a step of a layer calls, for readers of the results."""
    try:
        mixer = build_layer(name, LATE + STEPS)
    except MixerError:  # reported where the comparison is run
        return "none"
    with recorded() as called:
        mixer.step(torch.randn(1, DIM), mixer.init_state(1, LATE + STEPS))
    return ", ".join(sorted(called)) or "none"


def decoding_comparisons(mixers: Sequence[str]) -> Iterator[Comparison]:
    for name in timed_mixers(mixers):
        constant = registry.get(name).capabilities.constant_state
        requirements = (
            Requirement("price", "early", 1.1 if constant else None),
            Requirement("price", ONE_READ, READS if constant else None),
        )
        for batch in BATCHES if constant else BATCHES[:1]:
            about = (
                f"{STEPS} tokens of {batch} sequence(s) from position {LATE:,} compared with position {EARLY}; "
                f"{'constant' if constant else 'growing'} state; compiled steps: {compiled_steps(name)}"
            )
            named = name if batch == 1 else f"{name}, {batch} sequences"
            yield Comparison(named, LATE, partial(decoding, name, batch), requirements, about)
