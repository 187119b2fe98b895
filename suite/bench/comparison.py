"""A contest: implementations of one computation at one length, timed in turns, and what must be true of their ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from backbones.mixers.errors import MixerError
from suite.bench.timing import Timing, Work, interleaved, peak_bytes

Kind = Literal["price", "speed", "memory", "mfu"]


@dataclass(frozen=True)
class Demand:
    """A bound on ours against `peer`: its price (our time over theirs), our speed (their time over ours), memory (our
    peak over theirs), or
    model FLOPs utilisation: our FLOPs a second over those of a matrix product, `work` being our FLOPs over the
    product's.
    """

    kind: Kind
    peer: str
    must: float | None = None
    work: float = 1.0

    def value(self, ours: Measured, theirs: Measured) -> float:
        if self.kind == "memory":
            return ours.peak_bytes / max(theirs.peak_bytes, 1)
        ratio = ours.timing.median_s / theirs.timing.median_s
        return ratio if self.kind == "price" else self.work / ratio

    def met(self, value: float) -> bool | None:
        if self.must is None:
            return None
        return value >= self.must if self.kind in ("speed", "mfu") else value <= self.must


@dataclass(frozen=True)
class Contest:
    """`works["ours"]` against the rest. `build` makes them when their turn comes, so that not all inputs are held at
    once.
    """

    name: str
    length: int
    build: Callable[[], Mapping[str, Work]]
    demands: tuple[Demand, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Measured:
    implementation: str
    timing: Timing
    peak_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What was measured in one contest."""

    contest: Contest
    measured: Mapping[str, Measured]
    failed: Mapping[str, str] = field(default_factory=dict)
    peers: tuple[str, ...] = ()  # all there are, asked for or not

    def figures(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for demand in self.contest.demands:
            if {"ours", demand.peer} <= set(self.measured):
                value = demand.value(self.measured["ours"], self.measured[demand.peer])
                made.append(
                    {
                        "figure": demand.kind,
                        "against": demand.peer,
                        "value": value,
                        "must": demand.must,
                        "met": demand.met(value),
                    }
                )
        return made

    def unjudged(self) -> list[str]:
        """Demands that hang on something that could not run."""
        demands = [d for d in self.contest.demands if d.must is not None and d.peer in self.failed]
        return [f"{demand.kind} against {demand.peer}" for demand in demands]

    def plain(self) -> dict[str, Any]:
        rows = [
            {
                "implementation": name,
                "median_s": m.timing.median_s,
                "quartiles_s": [m.timing.low_s, m.timing.high_s],
                "samples": m.timing.samples,
                "peak_bytes": m.peak_bytes,
            }
            for name, m in self.measured.items()
        ]
        return {
            "name": self.contest.name,
            "length": self.contest.length,
            "about": self.contest.about,
            "rows": rows,
            "figures": self.figures(),
            "could_not_run": dict(self.failed),
            "unjudged": self.unjudged(),
        }


def run_contest(contest: Contest, rounds: int, only: Iterable[str] = ()) -> Outcome:
    """Times all, or ours and the named peers. A peer that cannot run is told, ours has to, unless its size cannot meet
    the budget.
    """
    failed: dict[str, str] = {}
    try:
        works = dict(contest.build())
    except MixerError as error:
        return Outcome(contest, {}, {"ours": str(error)})
    wanted, peers = {"ours", *only} if only else set(works), tuple(works)
    for name in list(works):
        if name not in wanted:
            del works[name]
            continue
        try:
            works[name]()
        except Exception as error:
            if name == "ours":
                raise
            failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
            del works[name]
    timings = interleaved(works, rounds)
    return Outcome(
        contest, {name: Measured(name, timings[name], peak_bytes(work)) for name, work in works.items()}, failed, peers
    )


def both_ways(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> Work:
    """Forward and backward of a function, with gradients for all inputs, given one fixed gradient of the result."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    upstream: list[Tensor] = []

    def work() -> None:
        out = function(*leaves)
        results = [out] if isinstance(out, Tensor) else list(out)
        if not upstream:
            upstream.extend(torch.randn_like(y) for y in results)
        torch.autograd.grad(results, leaves, upstream)

    return work
