"""What a sweep's tasks do in a Ray worker. Nothing heavy is imported before a run begins."""

from __future__ import annotations

import os
import platform
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import suite
from suite.sweeps.executor import Ended, Failed, Key, Step, Stopped, Work
from suite.sweeps.worker import carry_out_run, log_to

PATIENCE_S = 120.0  # until the lock of a machine that is lost ends on shared storage
FIRST_S = 60.0


@dataclass(frozen=True)
class Settings:
    """What all runs of a sweep have in common.

    threads: that compute.
    workers: processes that load data; None for the default.
    device: `auto`, `cpu` or `cuda`.
    log: receives what runs print.
    mark: a file in the runs folder that the sweep has written.
    folder: the sweep's working folder, below which relative paths are.
    versions: as `versions` gives them where the sweep runs.
    """

    threads: int
    workers: int | None
    device: str
    log: Path
    mark: Path
    folder: Path
    versions: dict[str, str]


@dataclass(frozen=True)
class Unusable:
    """The machine cannot carry out any run of the sweep."""

    reason: str


class Desk:
    """An actor between a sweep and its runs: runs write down their steps and learn whether they should stop."""

    def __init__(self) -> None:
        self.steps: dict[Key, tuple[int, int]] = {}
        self.stopping = False

    def write(self, key: Key, step: int, steps: int) -> bool:
        """Takes the step of a run.

        Args:
            key: of the run.
            step: that it has reached.
            steps: of the whole run; 0 before they are known.

        Returns:
            Whether it should stop.
        """
        self.steps[key] = (step, steps)
        return self.stopping

    def reached(self) -> dict[Key, tuple[int, int]]:
        """The steps that were written since the last call."""
        steps, self.steps = self.steps, {}
        return steps

    def stop(self) -> None:
        """From now on all runs should stop."""
        self.stopping = True


def versions() -> dict[str, str]:
    """What must be the same on all machines, because results could differ otherwise."""
    from importlib.metadata import version

    return {"mixer-suite": suite.__version__, "torch": version("torch"), "python": platform.python_version()}


def obstacle(mark: Path, wanted: dict[str, str]) -> str:
    """Why runs of a sweep cannot be carried out on this machine.

    Args:
        mark: a file in the runs folder that the sweep has written.
        wanted: the versions where the sweep runs.

    Returns:
        One line; empty where they can.
    """
    name, home = socket.gethostname(), mark.parent
    if not mark.exists():
        return (
            f"{name} does not see the sweep's runs folder {home}: runs, checkpoints and records must be on storage "
            "that all machines share; set SUITE_HOME to a folder of it"
        )
    if not os.access(home, os.W_OK | os.X_OK):
        return f"{name} cannot write to the runs folder {home}; give its Ray workers the permission"
    for what, here in versions().items():
        if here != wanted[what]:
            return f"{name} has {what} {here}, the sweep has {wanted[what]}; install the same on every machine"
    return ""


def run(key: Key, work: Work, settings: Settings, desk: Any) -> Ended | Failed | Stopped | Unusable:
    """A task: one run, in a worker that may have carried out others before.

    Args:
        key: of the run.
        work: the run.
        settings: of the sweep.
        desk: the actor's handle.

    Returns:
        What came of it.
    """
    if found := obstacle(settings.mark, settings.versions):  # a machine that joined the cluster later
        return Unusable(found)
    line = _Line(key, desk)
    if line.asked():
        return Stopped()
    log_to(settings.log)
    if settings.folder.is_dir():
        os.chdir(settings.folder)

    from suite.training import processors

    with processors.using(settings.threads, settings.workers):
        return carry_out_run(work, settings.device, line.send, line.stopped, PATIENCE_S)


class _Line:
    """The connection of a run to its sweep, which never makes it wait. A lost actor is started again by Ray; when the
    sweep has died, Ray ends this process.
    """

    def __init__(self, key: Key, desk: Any) -> None:
        self.key, self.desk, self.answer, self.stop = key, desk, None, False

    def asked(self) -> bool:
        """Whether the sweep is stopping already, which is worth a moment before a run begins."""
        import ray

        try:
            self.stop = bool(ray.get(self.desk.write.remote(self.key, 0, 0), timeout=FIRST_S))
        except ray.exceptions.RayError:
            self.stop = False
        return self.stop

    def send(self, step: Step) -> None:
        """Sends a step; the answer is read before the next ones."""
        if self.answer is None:
            self.answer = self.desk.write.remote(self.key, step.step, step.steps)

    def stopped(self) -> bool:
        """Whether the sweep has answered that it stops."""
        import ray

        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):
                self.stop = self.stop or bool(ray.get(self.answer))
            self.answer = None
        return self.stop
