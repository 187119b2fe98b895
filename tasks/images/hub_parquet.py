"""Image data sets on the Hugging Face hub: the names of their Parquet files, downloaded into the hub's own cache."""

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
    """A data set on the hub.

    `shards`: for each part, its name in the repository and its number of files. `small`: a run may download it.
    `cached_fraction`: the fraction of the images that a task also stores in the suite's cache, since Parquet files
    cannot be read in random order.
    """

    repo: str
    folder: str
    shards: Mapping[str, tuple[str, int]]
    megabytes: float
    small: bool
    gated: bool = False
    cached_fraction: float = 1.0

    def files(self) -> dict[str, list[str]]:
        """The files of each part."""
        return {
            part: [f"{self.folder}/{name}-{i:05}-of-{count:05}.parquet" for i in range(count)]
            for part, (name, count) in self.shards.items()
        }

    def is_downloaded(self) -> bool:
        """Whether all of it has been downloaded; uses no network."""
        return not self._missing()

    def download_note(self) -> str:
        """What downloading and reading it writes, and where; uses no network."""
        (hub_cache, download), (our_cache, copied) = self._disk_needs()
        comes = f"about {download / 1e6:,.0f} MB will be downloaded from the hub's {self.repo} to {hub_cache}"
        return (
            f"{comes}; about {copied / 1e6:,.0f} MB will be stored again in {our_cache}, or more as decoded pixels if "
            "these take at most half of the free space"
        )

    def fetch(self) -> dict[str, list[Path]]:
        """The local paths of each part's files; missing ones are downloaded.

        Before the first download, access and free disk space are checked, and the download is announced unless it is
        small. Raises DataError.
        """
        missing = self._missing()
        if missing:
            self._call(hub.check_access, missing[0])
            self._require_space()
            if not self.small:
                sys.stderr.write(f"{self.download_note()}\n")
        for file in missing:
            self._call(hub.fetch, file)
        return {part: [self._path(file) for file in files] for part, files in self.files().items()}

    def _missing(self) -> list[str]:
        return [file for files in self.files().values() for file in files if hub.cached(self.repo, file) is None]

    def _disk_needs(self) -> tuple[tuple[Path, int], tuple[Path, int]]:
        """The hub's cache and the suite's, each with the approximate number of bytes that are still to be written."""
        from huggingface_hub import constants

        missing = len(self._missing()) / sum(count for _, count in self.shards.values())
        total = 1e6 * self.megabytes
        our_cache = cache.folder("images")
        return (Path(constants.HF_HUB_CACHE), int(total * missing)), (our_cache, int(total * self.cached_fraction))

    def _require_space(self) -> None:
        """Raises DataError if a disk has too little free space for the folders that are on it."""
        by_disk: dict[int, list[tuple[Path, int]]] = {}
        for folder, needed in self._disk_needs():
            by_disk.setdefault(_disk_number(folder), []).append((folder, needed))
        for places in by_disk.values():
            free = shutil.disk_usage(_nearest_existing(places[0][0])).free
            if free < cache.RESERVE * sum(needed for _, needed in places):
                needs = " and ".join(f"about {needed / 1e6:,.0f} MB in {folder}" for folder, needed in places)
                disk = "they are on one disk with" if len(places) > 1 else "its disk has"
                raise DataError(
                    f"{self.repo} needs {needs}, {disk} {free / 1e6:,.0f} MB free; free some space, set HF_HUB_CACHE "
                    "or SUITE_CACHE to a folder on another disk, or pass --data-dir DIR"
                )

    def _path(self, file: str) -> Path:
        found = hub.cached(self.repo, file)
        return hub.verify(found) if found else self._call(hub.fetch, file)

    def _call(self, function: Callable[[str, str], T], file: str) -> T:
        """Calls a function of the hub's client for a file; for a gated set, its error explains how to get access."""
        try:
            return function(self.repo, file)
        except DataError as error:
            if not self.gated:
                raise
            access = f"{self.repo} is gated: accept its terms on its page of the hub and log in (hf auth login)"
            raise DataError(f"{error}; {access}") from error


def _nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _disk_number(folder: Path) -> int:
    """The device number of the disk that a folder is on, or would be on."""
    return _nearest_existing(folder).stat().st_dev
