"""Measures how far first losses move with the rounding, and with a learning rate that is 1 % off; writes
`tolerance.json`. Takes about five minutes on two cores:

    python -m suite.submissions.calibration

Compared with one thread and compiled kernels: two threads, and PyTorch's own implementations, on this machine's
processor. Other processors are further roundings, which nobody has measured yet.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from suite.statistics.race import window

TASKS = ("sotu", "fashion-mnist", "household-power", "mqar")
MIXERS = ("softmax", "fem", "hyperglu")
#: A change of the learning rate that a replay must find.
PLANTED = 1.01
STEPS = 16
#: Places of the rates in the race's window: the smallest, where a change of it moves the least, and the largest.
RATES = (0, 2)
#: Name of a variation → compiled kernels, threads.
VARIATIONS = {
    "1 thread": ("on", 1),
    "2 threads": ("on", 2),
    "1 thread, PyTorch": ("off", 1),
}
BASE = "1 thread"
FILE = Path(__file__).with_name("tolerance.json")


def cases() -> list[tuple[str, str, int, float]]:
    """Task, mixer, place of the learning rate in the race's window, and the factor on it."""
    every = [(*case, 1.0) for case in product(TASKS, MIXERS, RATES)]
    return [*every, *((*case, RATES[0], PLANTED) for case in product(TASKS, MIXERS))]


def measure(threads: int, *, planted: bool) -> None:
    """Prints the losses of every case as JSON lines."""
    import torch

    from suite.models.resolve import resolve_run, shipped_config
    from suite.submissions.replay import first_losses

    torch.set_num_threads(threads)
    for task, mixer, place, factor in cases():
        if factor != 1 and not planted:
            continue
        rate = window(shipped_config(task, "board").train.lr)[place] * factor
        resolved = resolve_run(task=task, mixer=mixer, scale="board", sets=[f"lr={rate!r}"])
        losses = first_losses(resolved.config, resolved.candidate, STEPS)
        print(json.dumps([[task, mixer, place, factor], losses]), flush=True)  # noqa: T201


def losses_of(kernels: str, threads: int, *, planted: bool) -> dict[str, list[float]]:
    """The losses in another process, by case."""
    environment = {**os.environ, "SUITE_COMPILED_KERNELS": kernels, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "suite.submissions.calibration", str(threads), *(["planted"] if planted else [])]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {json.dumps(case): losses for case, losses in map(json.loads, out.splitlines())}


def summarised(traces: dict[str, dict[str, list[float]]], steps: int) -> dict[str, Any]:
    """The tolerance, and the figures that it follows from.

    Args:
        traces: losses by variation and case.
        steps: that a replay compares.

    Returns:
        The content of `tolerance.json`: the tolerance is the geometric mean of the largest deviation by rounding and
        the smallest one by the planted change.
    """
    from suite.submissions.replay import deviation

    base, table = traces[BASE], []
    for task, mixer, place in product(TASKS, MIXERS, RATES):
        plain = base[json.dumps([task, mixer, place, 1.0])][:steps]
        row: dict[str, Any] = {"task": task, "mixer": mixer, "rate": place}
        for name, found in traces.items():
            if name != BASE:
                row[name] = deviation(plain, found[json.dumps([task, mixer, place, 1.0])][:steps])
        if place == RATES[0]:
            row["planted"] = deviation(plain, base[json.dumps([task, mixer, place, PLANTED])][:steps])
        table.append(row)
    rounding = max(row[name] for row in table for name in traces if name != BASE)
    planted = min(row["planted"] for row in table if "planted" in row)
    return {
        "steps": steps,
        "tolerance": float(f"{(rounding * planted) ** 0.5:.1e}"),
        "largest_by_rounding": rounding,
        "smallest_by_planted_change": planted,
        "planted_factor": PLANTED,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "cases": table,
    }


def main() -> None:
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]), planted="planted" in sys.argv)
        return
    traces = {name: losses_of(*setting, planted=name == BASE) for name, setting in VARIATIONS.items()}
    Path("traces.json").write_text(json.dumps(traces), "utf-8")
    FILE.write_text(json.dumps(summarised(traces, STEPS), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
