"""What carries out the runs of a sweep: the interface that scheduling uses, and what an executor reports of a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:  # a process that runs receives these messages before it imports PyTorch
    from suite.sweeps.entrant import Score

Key = tuple[int, float, int]
"""A run of a sweep: the index of its entrant, its learning rate and its seed."""


@dataclass(frozen=True)
class Settings:
    """How the runs of a sweep are executed, all of them alike.

    threads: of each run.
    workers: processes of each that load data; None for the default.
    device: `auto`, `cpu`, `cuda` or `cuda:N`.
    deterministic: as `suite run --deterministic`.
    """

    threads: int
    workers: int | None = None
    device: str = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class Work:
    """A run as it is sent to another process.

    config: as plain values.
    data_dir: of the task's data.
    pictures: whether it draws attention maps and examples.
    """

    config: dict[str, Any]
    data_dir: Path | None
    pictures: bool


@dataclass(frozen=True)
class Step:
    """A run has reached a step of how many."""

    step: int
    steps: int


@dataclass(frozen=True)
class Ended:
    """A run has a record: its id, and what choosing may see of it."""

    run: str
    score: Score


@dataclass(frozen=True)
class Failed:
    """A run could not start, or failed without a record; it would fail again."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The process or machine of a run was lost; another attempt continues at its last checkpoint."""

    reason: str


@dataclass(frozen=True)
class Stopped:
    """A run was asked to stop before it began."""


Report = Step | Ended | Failed | Died | Stopped


class Executor(AbstractContextManager["Executor"], Protocol):
    """Carries out runs in other processes. Entering it starts or joins what it needs, leaving it ends what it started.

    slots: runs at once; known once it is entered.
    attempts: how often a run is tried whose process is lost.
    """

    attempts: int

    @property
    def slots(self) -> int: ...

    def __enter__(self) -> Self: ...

    def start(self, key: Key, work: Work) -> None:
        """Starts a run; at most `slots` are in progress.

        Args:
            key: of the run, which its reports carry.
            work: the run.
        """

    def reports(self, timeout_s: float) -> Sequence[tuple[Key, Report]]:
        """What runs in progress report. A run has ended with its first report that is no `Step`.

        Args:
            timeout_s: how long to wait for the first one.

        Returns:
            The reports, none of them twice.
        """

    def stop(self) -> None:
        """Asks all runs in progress to write a checkpoint and to end. May be called again."""
