"""How long a sweep will take: from runs that have ended, else from a few measured training steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

import tasks
from suite.config.run_config import RunConfig
from suite.models.candidate import parse
from suite.sweeps.entrant import Entrant
from tasks.base import Task

STEPS = 3


def seconds_per_run(entrants: Sequence[Entrant]) -> float:
    """The expected time of one run of a task's entrants.

    Args:
        entrants: of one task.

    Returns:
        Seconds: the mean of runs that have ended; without any, what is measured of the first entrant. Other mixers
        may take longer, and loading data comes on top then.
    """
    ended = [score.wall_s for each in entrants for score in each.scores.values() if score.wall_s]
    return fmean(ended) if ended else run_seconds(entrants[0].base, entrants[0].data_dir)


def run_seconds(config: RunConfig, data_dir: Path | None = None) -> float:
    """The time of a run's steps and evaluations, from a few steps on real batches.

    Args:
        config: whose model is built.
        data_dir: of the task's data.

    Returns:
        Seconds, from the shortest of three steps after one that is not counted; 0 for a model that is not trained.
    """
    candidate = parse(config.mixer)
    task = tasks.get(config.task)(config.data, data_dir)
    task.load()
    plan, _ = candidate.check(config, task.spec)
    model = candidate.build(config, task, plan)
    if not any(p.requires_grad for p in model.parameters()):
        return 0.0
    forward_s, backward_s = _fastest(model, task, config)
    evaluated = config.train.evals * task.n_examples("valid") + task.n_examples("test")
    return config.train.steps * (forward_s + backward_s) + evaluated / config.train.batch_size * forward_s


def _fastest(model: nn.Module, task: Task, config: RunConfig) -> tuple[float, float]:
    """Seconds of a forward and a backward pass on a training batch."""
    batches, times = task.train_batches(0, config.train.batch_size), list[tuple[float, float]]()
    for _ in range(STEPS + 1):
        batch = next(batches)
        began = time.perf_counter()
        with torch.enable_grad():
            loss = task.loss(model(batch.inputs).float(), batch)
            between = time.perf_counter()
            loss.backward()
        times.append((between - began, time.perf_counter() - between))
    return min(times[1:], key=sum)
