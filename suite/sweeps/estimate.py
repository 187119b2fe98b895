"""How long a sweep will take: from runs that have ended, else from a few measured training steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

import tasks
from suite.config.run_config import RunConfig
from suite.models.candidate import parse
from suite.sweeps.entrant import Entrant

STEPS = 3


def seconds_per_run(entrants: Sequence[Entrant]) -> float:
    """The expected time of one run of a task's entrants.

    Args:
        entrants: of one task.

    Returns:
        Seconds: the mean of runs that have ended; without any, a measured step of the first entrant times the number
        of steps. Loading data and evaluation come on top then.
    """
    ended = [score.wall_s for each in entrants for score in each.scores.values() if score.wall_s]
    return (
        fmean(ended) if ended else step_seconds(entrants[0].base, entrants[0].data_dir) * entrants[0].base.train.steps
    )


def step_seconds(config: RunConfig, data_dir: Path | None = None) -> float:
    """The time of a training step on real batches.

    Args:
        config: whose model is built.
        data_dir: of the task's data.

    Returns:
        Seconds, the shortest of three after one that is not counted.
    """
    candidate = parse(config.mixer)
    task = tasks.get(config.task)(config.data, data_dir)
    task.load()
    plan, _ = candidate.check(config, task.spec)
    model = candidate.build(config, task, plan)
    if not any(p.requires_grad for p in model.parameters()):
        return 0.0
    batches = task.train_batches(0, config.train.batch_size)
    times = []
    for _ in range(STEPS + 1):
        batch = next(batches)
        began = time.perf_counter()
        with torch.enable_grad():
            task.loss(model(batch.inputs).float(), batch).backward()
        times.append(time.perf_counter() - began)
    return min(times[1:])
