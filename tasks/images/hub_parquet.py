"""Image data sets on the Hugging Face hub: their Parquet files by name, downloaded into the hub's own cache."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tasks.base import DataError
from tasks.storage import cache, hub

T = TypeVar("T")


@dataclass(frozen=True)
class HubImages:
    """A data set of the hub.

    `shards`: of each part, its name in the repository and the number of its files; `small`: a run fetches it; `kept`:
    the share of the images that a task keeps again in our own cache, since Parquet files are not read in any order.
    """

    repo: str
    folder: str
    shards: Mapping[str, tuple[str, int]]
    megabytes: float
    small: bool
    gated: bool = False
    kept: float = 1.0

    def files(self) -> dict[str, list[str]]:
        """The files of each part."""
        return {
            part: [f"{self.folder}/{name}-{i:05}-of-{count:05}.parquet" for i in range(count)]
            for part, (name, count) in self.shards.items()
        }

    def here(self) -> bool:
        """Whether all of it has been downloaded; asks no network."""
        return not self._missing()

    def note(self) -> str:
        """What fetching it and reading it writes and where, in words; asks no network."""
        (theirs, download), (ours, kept) = self._needs()
        comes = f"about {download / 1e6:,.0f} MB come from the hub's {self.repo} to {theirs}"
        return (
            f"{comes}; about {kept / 1e6:,.0f} MB are kept again in {ours}, or more, decoded, where half of "
            "the space then left holds that"
        )

    def fetch(self) -> dict[str, list[Path]]:
        """The local paths of each part's files, downloaded where they are missing.

        Before the first of them the hub is asked to let us in, the disks for room, and what comes is told unless it is
        small. Raises DataError.
        """
        missing = self._missing()
        if missing:
            self._call(hub.check_access, missing[0])
            self._require_space()
            if not self.small:
                sys.stderr.write(f"{self.note()}\n")
        for file in missing:
            self._call(hub.fetch, file)
        return {part: [self._path(file) for file in files] for part, files in self.files().items()}

    def _missing(self) -> list[str]:
        return [file for files in self.files().values() for file in files if hub.cached(self.repo, file) is None]

    def _needs(self) -> tuple[tuple[Path, int], tuple[Path, int]]:
        """The hub's cache and ours, and about how many bytes each of them still takes."""
        from huggingface_hub import constants

        share = len(self._missing()) / sum(count for _, count in self.shards.values())
        whole = 1e6 * self.megabytes
        return (Path(constants.HF_HUB_CACHE), int(whole * share)), (cache.folder("images"), int(whole * self.kept))

    def _require_space(self) -> None:
        """Raises DataError where the disk of either folder, or the one disk of both, has too little left."""
        by_disk: dict[int, list[tuple[Path, int]]] = {}
        for folder, needed in self._needs():
            by_disk.setdefault(_disk(folder), []).append((folder, needed))
        for places in by_disk.values():
            free = shutil.disk_usage(_existing(places[0][0])).free
            if free < cache.RESERVE * sum(needed for _, needed in places):
                takes = " and ".join(f"about {needed / 1e6:,.0f} MB in {folder}" for folder, needed in places)
                raise DataError(
                    f"{self.repo} takes {takes}, {'one disk with' if len(places) > 1 else 'where there are'} "
                    f"{free / 1e6:,.0f} MB left; "
                    "make room, set HF_HUB_CACHE or SUITE_CACHE to a folder on another disk, or pass --data-dir DIR"
                )

    def _path(self, file: str) -> Path:
        return hub.cached(self.repo, file) or self._call(hub.fetch, file)

    def _call(self, function: Callable[[str, str], T], file: str) -> T:
        """Calls a function of the hub's client for a file; of a gated set, the error says how to get in."""
        try:
            return function(self.repo, file)
        except DataError as error:
            terms = (
                f"; {self.repo} is gated: accept its terms on its page of the hub and log in (hf auth login)"
                if self.gated
                else ""
            )
            raise DataError(f"{error}{terms}") from error


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there already."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _disk(folder: Path) -> int:
    """The number of the disk that a folder is on, or would be."""
    return _existing(folder).stat().st_dev
