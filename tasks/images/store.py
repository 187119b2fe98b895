"""The images of a set in the cache, for reading in random order: as decoded pixels or as image files.

A store is a folder of chunks. `00012.bin` contains the images of a chunk one after the other, `00012.npy` their ends,
heights and widths (`[n, 3]`; height 0: an encoded file), `00012.sha256` the hash of both. The table is written last and
atomically, so a chunk that has it is complete, and building resumes after the last complete chunk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.base import DataError
from tasks.images.image_set import ImageSet, read_rgb, shrink
from tasks.storage import cache, verified
from tasks.storage.cores import cores
from tasks.storage.user_files import reading

Progress = Callable[[int, int], None]
IMAGES_IN_MEMORY = 64  # while a chunk is written
MAX_MAPPED_CHUNKS = 256  # each of them keeps a file open


class Store:
    """The stored images of a set, in their own folder.

    `decoded`: as pixels, with a shorter side of at most `side` (0: unchanged); otherwise as image files.
    """

    def __init__(self, folder: Path, images: ImageSet, *, decoded: bool, side: int = 0) -> None:
        self.folder, self.images, self.decoded, self.side = folder, images, decoded, side
        self._starts = np.array([chunk.start for chunk in images.chunks])
        self._open: dict[int, tuple[NDArray[np.int64], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a copy in another process maps the files itself

    @property
    def is_complete(self) -> bool:
        return all(self._is_stored(chunk) for chunk in range(len(self.images.chunks)))

    def build(self, progress: Progress | None = None) -> None:
        """Writes the missing chunks. Raises a DataError that counts the damaged images and names the first three."""
        total, problems = len(self.images.listing), list[str]()
        with cache.lock(self.folder / "lock"), ThreadPoolExecutor(cores()) as pool:
            for number, chunk in enumerate(self.images.chunks):
                if not self._is_stored(number):
                    problems += self._write(number, pool, progress)
                elif progress is not None:
                    progress(chunk.stop, total)
        if problems:
            raise damaged_images(problems, total)

    def verify(self) -> None:
        """Hashes the chunks that have changed since they were last hashed on this machine, or are small.

        Raises DataError if a chunk is not as it was written.
        """
        chunks = range(len(self.images.chunks))
        with ThreadPoolExecutor(cores()) as pool:
            damaged = [
                chunk for chunk, whole in zip(chunks, pool.map(self._is_as_written, chunks), strict=True) if not whole
            ]
        if damaged:
            name = self._index(damaged[0]).stem
            raise DataError(
                f"the cache {self.folder} is damaged: chunk {name} is not as it was written ({len(damaged)} of "
                f"{len(chunks)} chunks); delete that folder and try again"
            )

    def _is_as_written(self, chunk: int) -> bool:
        index = self._index(chunk)
        with reading(index):
            recorded = index.with_suffix(".sha256").read_text("ascii", "replace")
        return verified.content_hash(_files(index)) == recorded

    def read(self, index: int) -> Image.Image:
        """An image as RGB, with a shorter side of at most `side`."""
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        table, blob = self._mapped(chunk)
        place = index - int(self._starts[chunk])
        start = int(table[place - 1, 0]) if place else 0
        end, height, width = (int(value) for value in table[place])
        if height:
            return Image.fromarray(blob[start:end].reshape(height, width, 3))
        return shrink(read_rgb(blob[start:end].tobytes(), self.images.location(index)), self.side)

    def _index(self, chunk: int) -> Path:
        return self.folder / f"{chunk:05}.npy"

    def _is_stored(self, chunk: int) -> bool:
        return self._index(chunk).is_file() and self._index(chunk).with_suffix(".sha256").is_file()

    def _mapped(self, chunk: int) -> tuple[NDArray[np.int64], Any]:
        if chunk not in self._open:
            if len(self._open) == MAX_MAPPED_CHUNKS:
                self._open.clear()
            try:
                table = np.load(self._index(chunk))
                blob = np.memmap(self._index(chunk).with_suffix(".bin"), dtype=np.uint8, mode="r")
                if len(blob) != table[-1, 0]:
                    raise ValueError("truncated")
            except (OSError, ValueError) as error:
                raise DataError(
                    f"the cache {self.folder} is damaged ({error}); delete that folder and try again"
                ) from error
            self._open[chunk] = table, blob
        return self._open[chunk]

    def _write(self, chunk: int, pool: ThreadPoolExecutor, progress: Progress | None) -> list[str]:
        """Writes a chunk unless some of its images are damaged, and returns the errors about those."""
        rows: list[tuple[int, int, int]] = []
        problems: list[str] = []
        index, end, whole = self._index(chunk), 0, sha256()
        try:
            with index.with_suffix(".bin").open("wb") as stream:
                for done, packed in enumerate(self._packed(chunk, pool), self.images.chunks[chunk].start + 1):
                    if isinstance(packed, str):
                        problems.append(packed)
                    else:
                        blob, height, width = packed
                        stream.write(blob)
                        whole.update(blob)
                        end += len(blob)
                        rows.append((end, height, width))
                    if progress is not None:
                        progress(done, len(self.images.listing))
                stream.flush()
                os.fsync(stream.fileno())
            if not problems:
                table = BytesIO()
                np.save(table, np.array(rows, dtype=np.int64).reshape(-1, 3))
                hashes = whole.hexdigest(), sha256(table.getvalue()).hexdigest()
                content = sha256("".join(hashes).encode()).hexdigest()
                cache.write_text(index.with_suffix(".sha256"), content)
                cache.write_atomically(index, lambda path: path.write_bytes(table.getvalue()))
                verified.remember(_files(index), content)
        except OSError as error:
            raise cache.unwritable(self.folder, error) from error
        return problems

    def _packed(self, chunk: int, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, int, int] | str]:
        """(bytes, height, width) of each image of a chunk, or the error about it."""
        files = zip(self.images.chunks[chunk], self.images.encoded(chunk), strict=True)
        while group := list(islice(files, IMAGES_IN_MEMORY)):
            yield from pool.map(self._pack, group) if self.decoded else ((file, 0, 0) for _, file in group)

    def _pack(self, numbered: tuple[int, bytes]) -> tuple[bytes, int, int] | str:
        index, file = numbered
        try:
            image = shrink(read_rgb(file, self.images.location(index)), self.side)
        except DataError as error:
            return str(error)
        return image.tobytes(), image.height, image.width


def _files(index: Path) -> list[Path]:
    """The files of a chunk that are read: images, then table."""
    return [index.with_suffix(".bin"), index]


def damaged_images(problems: list[str], total: int) -> DataError:
    """One error, of one line, about all damaged images of a set."""
    more = f" | and {len(problems) - 3} more" if len(problems) > 3 else ""
    return DataError(f"{len(problems)} of {total} images are damaged: {' | '.join(problems[:3])}{more}")
