"""Timing for fair comparisons: interleaved rounds, process time on one thread, medians and quartiles, the allocator's
peak.

Process time counts this process's work only, so that another busy process affects caches and clock speed but not the
measured time. With more than one thread, and on a GPU, wall time is measured and the machine has to be idle. A clock of
a GPU is read once all work that was given to it is done. Nothing here has been timed on a GPU yet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")
Workload = Callable[[], object]
#: A sample repeats its workload until it lasts this long, so that the clock's resolution and the call are negligible.
MIN_SAMPLE_S = 0.01
#: With several threads: the first calls after another number of threads start new ones, whose buffers are cold.
MIN_THREADED_SAMPLE_S = 0.5


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median, and the first and third quartile of all samples."""

    median_s: float
    low_s: float
    high_s: float
    samples: int


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type == "cuda":
        return _when_the_gpu_is_done
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _when_the_gpu_is_done() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _seconds_per_call(workload: Workload, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        workload()
    return (clock() - began) / repeats


def interleaved(workloads: Mapping[str, Workload], rounds: int, device: torch.device = CPU) -> dict[str, Timing]:
    """Each round times every workload once, in an order that rotates, so that a drift of the machine's speed affects
    all of them alike. With several threads each has an untimed call before.
    """
    clock, names, several = _clock(device), list(workloads), torch.get_num_threads() > 1
    repeats, least = {}, MIN_THREADED_SAMPLE_S if several else MIN_SAMPLE_S
    for name, workload in workloads.items():
        workload()  # the first call loads code and maps memory
        repeats[name] = max(1, round(least / max(_seconds_per_call(workload, 1, clock), 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for offset in range(len(names)):
            name = names[(index + offset) % len(names)]
            if several:
                workloads[name]()
            samples[name].append(_seconds_per_call(workloads[name], repeats[name], clock))
    return {name: summary(values) for name, values in samples.items()}


def summary(samples: list[float]) -> Timing:
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, low, high, len(samples))


def peak_bytes(workload: Workload, device: torch.device = CPU) -> int:
    """The largest rise of the memory of PyTorch's allocator above its level before the call. Buffers inside libraries
    are not counted.
    """
    workload()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        workload()
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
