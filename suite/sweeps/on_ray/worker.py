"""What a sweep's tasks do in a Ray worker. Nothing heavy is imported before a run begins."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import suite
from suite.sweeps.executor import Ended, Failed, Key, Settings, Stopped, Work
from suite.sweeps.on_ray.desk import Line
from suite.sweeps.worker import carry_out_run, in_force, log_to

PATIENCE_S = 120.0  # until the lock of a machine that is lost ends on shared storage


@dataclass(frozen=True)
class Site:
    """What a machine needs to carry out runs of a sweep.

    log: receives what runs print.
    mark: a file in the runs folder that the sweep has written.
    folder: the sweep's working folder, below which relative paths are.
    versions: as `versions` gives them where the sweep runs.
    """

    log: Path
    mark: Path
    folder: Path
    versions: dict[str, str]


@dataclass(frozen=True)
class Unusable:
    """The machine cannot carry out any run of the sweep."""

    reason: str


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


def run(key: Key, work: Work, settings: Settings, site: Site, desk: Any) -> Ended | Failed | Stopped | Unusable:
    """A task: one run, in a worker that may have carried out others before.

    Args:
        key: of the run.
        work: the run.
        settings: of all runs.
        site: of the sweep.
        desk: the actor's handle.

    Returns:
        What came of it.
    """
    if found := obstacle(site.mark, site.versions):  # a machine that joined the cluster later
        return Unusable(found)
    line = Line(key, desk)
    if line.asked():
        return Stopped()
    log_to(site.log)
    if site.folder.is_dir():
        os.chdir(site.folder)
    with in_force(settings):
        return carry_out_run(work, settings.device, line.send, line.stopped, PATIENCE_S)
