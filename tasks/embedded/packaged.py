"""Common code of the embedded tasks: their data ship with the suite, so they take no folder and stay in memory."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from tasks import embedded
from tasks.base import DataError, Task, TaskOptions


class PackagedTask(Task):
    """A task over an embedded data set. `load` reads and checks it; no workers, since a batch takes microseconds."""

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        if data_dir is not None:
            raise DataError(f"{self.name} ships its data, so --data-dir {data_dir} would have no effect; leave it out")
        super().__init__(options, data_dir)
        self._loaded = False

    def load(self) -> None:
        if not self._loaded:
            self._read()
            self._loaded = True

    @abstractmethod
    def _read(self) -> None:
        """Reads and splits the data."""

    @property
    def fingerprint(self) -> str:
        self.load()
        return embedded.fingerprint(self.name)
