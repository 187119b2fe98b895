"""Image data sets on the Hugging Face hub: their Parquet files by name, downloaded into the hub's own cache."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks import cache, hub
from tasks.base import DataError


@dataclass(frozen=True)
class HubImages:
    """A data set of the hub. `shards`: of each part, its name in the repository and the number of its files; `small`: a run fetches it."""

    repo: str
    folder: str
    shards: Mapping[str, tuple[str, int]]
    megabytes: float
    small: bool
    gated: bool = False

    def files(self) -> dict[str, list[str]]:
        """The files of each part."""
        return {
            part: [f"{self.folder}/{name}-{i:05}-of-{count:05}.parquet" for i in range(count)]
            for part, (name, count) in self.shards.items()
        }

    def here(self) -> bool:
        """Whether all of it has been downloaded; asks no network."""
        return all(hub.cached(self.repo, file) is not None for files in self.files().values() for file in files)

    def fetch(self) -> dict[str, list[Path]]:
        """The local paths of each part's files, downloaded where they are missing. Raises DataError."""
        missing = [file for files in self.files().values() for file in files if hub.cached(self.repo, file) is None]
        try:
            for done, file in enumerate(missing):
                hub.fetch(self.repo, file)
                if done == 0 and len(missing) > 1:  # the hub has let us in
                    self._announce(len(missing) - 1)
            return {part: [self._path(file) for file in files] for part, files in self.files().items()}
        except DataError as error:
            terms = f"; {self.repo} is gated: accept its terms on its page of the hub and log in (hf auth login)" if self.gated else ""
            raise DataError(f"{error}{terms}") from error

    def _announce(self, files: int) -> None:
        """Says how much comes. Raises DataError where the disk has no room for it."""
        from huggingface_hub import constants

        needed = int(1e6 * self.megabytes * files / sum(count for _, count in self.shards.values()))
        cache.require_space(Path(constants.HF_HUB_CACHE), needed, f"what is missing of {self.repo}")
        sys.stderr.write(f"{files} more files of {self.repo} follow, about {needed / 1e6:,.0f} MB, to {constants.HF_HUB_CACHE}\n")

    def _path(self, file: str) -> Path:
        return hub.cached(self.repo, file) or hub.fetch(self.repo, file)
