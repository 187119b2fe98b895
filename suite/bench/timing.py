"""Timing that a comparison can rest on: interleaved rounds, process time on one thread, medians and quartiles, peak of
the allocator.

Process time counts this process's work only, so another busy process costs cache and turbo but not time; on more than
one thread wall time is taken and the machine has to be quiet. Everything runs on the CPU: nothing here has been timed
on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Work = Callable[[], object]
MIN_SAMPLE_S = (
    0.01  # a sample repeats the work until it lasts this long: the clock's steps and the call itself vanish in it
)


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median with the first and third quartile of all samples."""

    median_s: float
    low_s: float
    high_s: float
    samples: int


def _clock() -> Callable[[], float]:
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _once(work: Work, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        work()
    return (clock() - began) / repeats


def interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, Timing]:
    """Each round runs every piece of work once, in an order that turns, so that drifts of the machine meet all of them
    alike.
    """
    clock, names = _clock(), list(works)
    repeats = {}
    for name, work in works.items():
        work()  # first calls load code and map memory
        repeats[name] = max(1, round(MIN_SAMPLE_S / max(_once(work, 1, clock), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for at in range(len(names)):
            name = names[(index + at) % len(names)]
            samples[name].append(_once(works[name], repeats[name], clock))
    return {name: summary(values) for name, values in samples.items()}


def summary(samples: list[float]) -> Timing:
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, low, high, len(samples))


def peak_bytes(work: Work) -> int:
    """How far the memory of PyTorch's allocator rises above its level before the work (buffers inside libraries are not
    seen).
    """
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def exponent(lengths: list[int], seconds: list[float]) -> float:
    """Slope of log time over log length, by least squares."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (lengths, seconds))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())
