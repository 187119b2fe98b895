"""A comparison: implementations of one computation at one length, timed in interleaved rounds, and the ratios that are
required of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from backbones.mixers.errors import MixerError
from suite.bench.timing import CPU, Timing, Workload, interleaved, peak_bytes
from suite.errors import first_line

Kind = Literal["price", "speed", "memory", "mfu"]


@dataclass(frozen=True)
class Requirement:
    """A ratio of ours to a competitor, and the bound it must meet, if any.

    price: our time over theirs; speed: their time over ours; memory: our peak over theirs; mfu (model FLOPs
    utilisation): our FLOPs per second over those of a matrix product or of multiply-adds on registers, `work` being our
    FLOPs over theirs.
    """

    kind: Kind
    competitor: str
    bound: float | None = None
    work: float = 1.0

    def value(self, ours: Measured, theirs: Measured) -> float:
        if self.kind == "memory":
            return ours.peak_bytes / max(theirs.peak_bytes, 1)
        ratio = ours.timing.median_s / theirs.timing.median_s
        return ratio if self.kind == "price" else self.work / ratio

    def met(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value >= self.bound if self.kind in ("speed", "mfu") else value <= self.bound


@dataclass(frozen=True)
class Comparison:
    """The implementation called `ours` against the others. `build` makes all of them; it is called just before they
    are timed, so that the inputs of only one comparison are in memory.
    """

    name: str
    length: int
    build: Callable[[], Mapping[str, Workload]]
    requirements: tuple[Requirement, ...] = ()
    about: str = ""
    device: torch.device = CPU


@dataclass(frozen=True)
class Measured:
    timing: Timing
    peak_bytes: int


@dataclass(frozen=True)
class Outcome:
    """The measurements of one comparison."""

    comparison: Comparison
    measured: Mapping[str, Measured]
    failed: Mapping[str, str] = field(default_factory=dict)
    implementations: tuple[str, ...] = ()  # all that exist, timed or not

    def figures(self) -> list[dict[str, Any]]:
        """The measured ratio of each requirement, and whether it is met."""
        found: list[dict[str, Any]] = []
        for requirement in self.comparison.requirements:
            if {"ours", requirement.competitor} <= set(self.measured):
                value = requirement.value(self.measured["ours"], self.measured[requirement.competitor])
                found.append(
                    {
                        "figure": requirement.kind,
                        "against": requirement.competitor,
                        "value": value,
                        "must": requirement.bound,
                        "met": requirement.met(value),
                    }
                )
        return found

    def undecided(self) -> list[str]:
        """Requirements whose competitor could not run, or does not exist here."""
        missing = (
            {r.competitor for r in self.comparison.requirements} - set(self.implementations) if self.measured else ()
        )
        absent = {*self.failed, *missing}
        found = [r for r in self.comparison.requirements if r.bound is not None and r.competitor in absent]
        return [f"{requirement.kind} against {requirement.competitor}" for requirement in found]

    def plain(self) -> dict[str, Any]:
        """The outcome as JSON values."""
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
            "name": self.comparison.name,
            "length": self.comparison.length,
            "about": self.comparison.about,
            "rows": rows,
            "figures": self.figures(),
            "could_not_run": dict(self.failed),
            "unjudged": self.undecided(),
        }


def run_comparison(comparison: Comparison, rounds: int, only: Iterable[str] = ()) -> Outcome:
    """Times all implementations, or ours and the competitors named in `only`.

    A competitor that cannot run is reported in `failed`. An error of ours is raised, except a mixer whose size cannot
    meet the budget at this length.
    """
    try:
        built = dict(comparison.build())
    except MixerError as error:
        return Outcome(comparison, {}, {"ours": str(error)})
    wanted = {"ours", *only} if only else set(built)
    runnable: dict[str, Workload] = {}
    failed: dict[str, str] = {}
    for name, workload in built.items():
        if name not in wanted:
            continue
        try:
            workload()
            runnable[name] = workload
        except Exception as error:
            if name == "ours":
                raise
            message = first_line(error, 200) if str(error).strip() else "no message"
            failed[name] = f"{type(error).__name__}: {message}"
    device = comparison.device
    timings = interleaved(runnable, rounds, device)
    measured = {name: Measured(timings[name], peak_bytes(workload, device)) for name, workload in runnable.items()}
    return Outcome(comparison, measured, failed, tuple(built))


def forward_backward(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> Workload:
    """Forward and backward of a function: gradients of all inputs, for one fixed gradient of the result."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    upstream: list[Tensor] = []

    def run() -> None:
        out = function(*leaves)
        results = [out] if isinstance(out, Tensor) else list(out)
        if not upstream:
            upstream.extend(torch.randn_like(y) for y in results)
        torch.autograd.grad(results, leaves, upstream)

    return run
