"""`python -m tests.scale.logging_process HOME RUN STEPS`: logs a run once its input has a line; warnings to stderr."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.suite.tracking.tracked_runs import tracker

METRICS = 5


def value_of(run: int, metric: int, step: int) -> float:
    """The value of a point, which no other point has."""
    return float(run * 1_000_000 + metric * 100_000 + step)


def main(home: str, run: str, steps: str) -> None:
    warnings: list[str] = []
    sys.stdin.readline()
    names = {"experiment": "load/logging", "run_name": f"run-{run}"}
    with tracker(Path(home), f"run-{run}", warnings=warnings, **names) as tracked:
        for step in range(int(steps)):
            tracked.log(step, {f"train/m{metric}": value_of(int(run), metric, step) for metric in range(METRICS)})
            if step % 100 == 0:
                tracked.flush()
    sys.stderr.writelines(f"{warning}\n" for warning in warnings)


if __name__ == "__main__":
    main(*sys.argv[1:])
