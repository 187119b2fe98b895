"""Runs of a row that are trained again, each an ordinary run in a folder apart: which, how long, and their figures."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from suite.config.run_config import RunConfig
from suite.errors import UserError, first_line
from suite.records import provenance, runs_folder
from suite.records.schema import Record
from suite.submissions.replay import config_of, miscounted
from suite.submissions.reproducible import Row
from suite.sweeps.estimate import run_seconds
from suite.training import processors
from suite.training.run import resume_newest

#: A factor on the learning rate that changes a step as much as rounding does.
NUDGE = 1 + 1e-6
#: In the runs folder. Its runs are in no board of this machine, and no run of an author is among them.
FOLDER = "reproduced"


class Stopped(Exception):
    """A signal stopped a run at a checkpoint; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Failed(Exception):
    """A run ended without a figure."""


@dataclass(frozen=True)
class Planned:
    """What is trained again of a row.

    drawn: the records of its seeds, by path, in the order of the seeds.
    configs: of each, as recorded and for the calibration.
    fault: why they cannot be trained, in one line; empty where they can.
    """

    row: Row
    drawn: Mapping[str, Record]
    configs: Mapping[str, tuple[RunConfig, RunConfig]]
    fault: str = ""


def plan(row: Row, count: int, sources: Mapping[str, Path]) -> Planned:
    """Draws the seeds of a row at random, so that no author can know which. Those that were begun here come first. Runs
    the mixer's file where it has one.

    Args:
        row: without an obstacle.
        count: seeds.
        sources: origin → file, of mixers in files.

    Returns:
        What is to be trained.
    """
    try:
        made = {path: config_of(made, sources) for path, made in row.runs.items()}
        fault = next(filter(None, (miscounted(row.runs[path], *each) for path, each in made.items())), "")
    except Exception as error:  # whatever the model raises: the records claim that it was trained
        made, fault = {}, f"it cannot be trained again: {type(error).__name__}: {first_line(error)}"
    configs, begun = {path: _both(config) for path, (config, _) in made.items()}, _begun()
    order = secrets.SystemRandom().sample(sorted(configs), len(configs))
    order.sort(key=lambda path: not any(each.identity in begun for each in configs[path]))
    drawn = sorted(order[:count], key=lambda path: row.runs[path].seed)
    return Planned(row, {path: row.runs[path] for path in drawn}, {path: configs[path] for path in drawn}, fault)


def _both(config: RunConfig) -> tuple[RunConfig, RunConfig]:
    train = config.train.model_copy(update={"lr": NUDGE * config.train.lr})
    return config, config.model_copy(update={"train": train})


def _begun() -> set[object]:
    with own_folder():
        return {runs_folder.identity_of(folder) for folder in runs_folder.all_runs()}


def seconds(planned: Sequence[Planned]) -> float:
    """How long training takes, from a few measured steps of each row. Loading data comes on top.

    Args:
        planned: from `plan`.

    Returns:
        Seconds; runs that have ended here take none.
    """
    total = 0.0
    with own_folder(), processors.using():
        for each in planned:
            every = [config for pair in each.configs.values() for config in pair]
            missing = sum(runs_folder.newest_ended(config.identity) is None for config in every)
            if missing and not each.fault:
                total += missing * run_seconds(every[0])
    return total


def figure(config: RunConfig, metric: str) -> float:
    """A test figure of a run, which starts, continues, or has ended here.

    Args:
        config: its widths solved.
        metric: of the figure.

    Returns:
        The value.

    Raises:
        Stopped: a signal stopped the run.
        Failed: it ended without the figure.
        UserError: the runs folder does not allow it.
    """
    began = time.monotonic()
    try:
        with own_folder(), processors.using():
            outcome = resume_newest(config, data_dir=None, device="cpu", commanded=began)
    except UserError:
        raise
    except Exception as error:  # of the mixer's file
        raise Failed(f"seed {config.seed}: {type(error).__name__}: {first_line(error)}") from None
    made = outcome.record
    if made.status == "interrupted":
        raise Stopped(outcome.exit_code)
    if metric not in made.metrics.get("test", {}):
        raise Failed(f"seed {config.seed} {made.status}: {made.error}")
    return made.metrics["test"][metric]


@contextmanager
def own_folder() -> Iterator[None]:
    """Runs within the block are apart from all others, those of another commit included, and untracked."""
    code = provenance.code("", "")
    version = (code.git_sha or code.version)[:12] + ("-changed" if code.git_dirty else "")
    changed = {"SUITE_HOME": str(runs_folder.home() / FOLDER / version), "SUITE_TRACKING": "off"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
