"""Contests of whole mixer layers of equal parameters, and of their decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from backbones.mixers import registry
from backbones.mixers.base import Context, Mixer, State
from suite.bench import naive
from suite.bench.comparison import Contest, Demand, both_ways
from suite.bench.timing import Work
from suite.errors import UserError

DIM, HEADS = 256, 4
EARLY, LATE, STEPS = 64, 4096, 16
PRICES: Mapping[tuple[str, int], float] = {
    ("fem", 1024): 1.40,
    ("fem, no convolution", 1024): 1.25,
    ("hyperglu", 1024): 3.5,
    ("hyperglu", 2048): 3.5,
}
OVER_DENSE: Mapping[int, float] = {1024: 3.0, 2048: 6.0}  # speed of HyperGLU's layer over its dense masked form


def built(name: str, length: int, **options: object) -> Mixer:
    """A causal layer with as many parameters as softmax attention of width 256."""
    cls = registry.get(name)
    heads = min(HEADS, cls.Config.model_fields["heads"].default) if "heads" in cls.Config.model_fields else HEADS
    config = cls.size(cls.Config(causal=True, heads=heads, **options), DIM, length, 4 * DIM * DIM)
    torch.manual_seed(0)
    mixer = cls(config, DIM, length)
    mixer.reset_parameters()
    return mixer


def candidates(mixers: Sequence[str]) -> list[str]:
    """The mixers asked for, or every causal one that needs nothing beside its input."""
    plain = [
        name
        for name in registry.names()
        if registry.origin(name) == "built-in"
        and registry.get(name).capabilities.causal
        and not registry.get(name).capabilities.needs
    ]
    for name in mixers:
        if name not in plain and ":" not in name:
            raise UserError(
                f"bench: {name!r} is not a causal mixer that needs only its input; those are {', '.join(plain)}"
            )
    return list(mixers) or plain


def pass_through(mixer: Mixer, x_BTD: Tensor) -> Work:
    names, parameters = zip(*mixer.named_parameters(), strict=True)

    def function(x_BTD: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), (x_BTD, Context()))
        return out

    return both_ways(function, x_BTD, *parameters)


def layer(name: str, length: int) -> Mapping[str, Work]:
    mixer, _, without = name.partition(", no ")
    options = {without: False} if without else {}
    x_BTD = torch.randn(1, length, DIM, generator=torch.Generator().manual_seed(1))
    ours = pass_through(built(mixer, length, **options), x_BTD)
    works = {"ours": ours, "softmax": pass_through(built("softmax", length), x_BTD)}
    if name == "hyperglu":
        works["dense"] = by_squares(ours)
    return works


def by_squares(work: Work) -> Work:
    """The same layer with its lag mixing in the dense masked form."""

    def mixed(q: Tensor, k: Tensor, v: Tensor, before: Any, behind: Any, *_: object) -> Tensor:
        return naive.lag_mix_by_squares(q, k, v, before, behind)

    def dense() -> object:
        with patch("backbones.mixers.hyper.hypermlp.lag_mix", mixed):
            return work()

    return dense


def layers(mixers: Sequence[str], lengths: Sequence[int]) -> Iterator[Contest]:
    for name in candidates(mixers):
        arms = [name, "fem, no convolution"] if name == "fem" else [name]
        for length in lengths or ((1024, 2048) if name == "hyperglu" else (1024,)):
            for arm in arms:
                demands = [Demand("price", "softmax", PRICES.get((arm, length)))]
                if arm == "hyperglu":
                    demands.append(Demand("speed", "dense", OVER_DENSE.get(length)))
                    demands.append(Demand("memory", "dense", 0.1 if length in OVER_DENSE else None))
                yield Contest(arm, length, partial(layer, arm, length), tuple(demands), f"D {DIM}, equal parameters")


def walked(mixer: Mixer, position: int) -> State:
    """A decoding state behind `position` tokens."""
    state = mixer.init_state(1, LATE + STEPS)
    for x_BD in torch.randn(position, 1, mixer.dim, generator=torch.Generator().manual_seed(2)):
        _, state = mixer.step(x_BD, state)
    return state


@torch.no_grad()
def decoding(name: str) -> Mapping[str, Work]:
    mixer, x_BD = built(name, LATE + STEPS), torch.randn(1, DIM)

    def work(start: State) -> Work:
        @torch.no_grad()
        def steps() -> None:
            # growing caches are overwritten behind the position: the work stays the same
            state = State(dict(start.tensors), start.position)
            for _ in range(STEPS):
                _, state = mixer.step(x_BD, state)

        return steps

    return {"ours": work(walked(mixer, LATE)), "early": work(walked(mixer, EARLY))}


def decodings(mixers: Sequence[str]) -> Iterator[Contest]:
    for name in candidates(mixers):
        constant = registry.get(name).capabilities.constant_state
        price = Demand("price", "early", 1.1 if constant else None)
        about = (
            f"{STEPS} tokens from position {LATE:,} on against position {EARLY}; "
            f"{'constant' if constant else 'growing'} state"
        )
        yield Contest(name, LATE, partial(decoding, name), (price,), about)
