"""Images in Parquet files of the Hugging Face hub, or in Arrow files that `save_to_disk` writes.

They have a column of image files (`bytes`, `path`), a column of labels, and the class names in the schema's metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.images.class_folders import some_of
from tasks.images.image_set import ImageFile, ImageSet, Listing, with_content
from tasks.storage.arrow_files import ARROW, batches_of, schema_of

ROWS_PER_READ = 32  # rows read at a time
SAMPLED_SHARDS = 4

#: The classes of a task and, for each label of the files in order, its label in the task, or -1 if it is not used.
ClassMap = tuple[Sequence[str], NDArray[np.int64]]
MapClasses = Callable[[Sequence[str]], ClassMap]


@dataclass(frozen=True)
class ParquetShard:
    path: Path
    part: str
    rows: NDArray[np.int64]  # rows in use, ascending


class ParquetSet(ImageSet):
    """The images of a data set's Parquet or Arrow shards, in order of part, shard and row.

    `map_classes` maps the class names of the files to the classes of the task. `label`: the name of the label column if
    the files have several.
    """

    def __init__(
        self, root: Path, files: Mapping[str, Sequence[Path]], map_classes: MapClasses, label: str = "label"
    ) -> None:
        self.root = root
        self.columns, names = read_schema(next(iter(files.values()))[0], label)
        wanted, places = map_classes(names)
        self.classes = tuple(wanted)
        images: list[ImageFile] = []
        self.shards: list[ParquetShard] = []
        self.parts, self.chunks = {}, []
        for part, paths in files.items():
            start = len(images)
            for path in sorted(paths):
                begin = len(images)
                images += self._add(path, part, names, places)
                self.chunks.append(range(begin, len(images)))
            self.parts[part] = np.arange(start, len(images))
            self._require_all_classes(part, {image.label for image in images[start:]})
        self.listing = Listing(images)
        self._identify([image.label for image in images])

    def _add(self, path: Path, part: str, names: Sequence[str], places: NDArray[np.int64]) -> list[ImageFile]:
        """The images in use of one shard."""
        if read_schema(path, self.columns.label) != (self.columns, list(names)):
            raise DataError(
                f"{path}: its columns or class names differ from those of the other files; download all files again at "
                "one version"
            )
        labels = read_labels(path, self.columns, names)
        chosen = places[labels]
        shard = ParquetShard(path, part, np.flatnonzero(chosen >= 0))
        self.shards.append(shard)
        size = path.stat().st_size // max(len(labels), 1)  # mean over the images of the file
        name = path.relative_to(self.root).as_posix() if path.suffix == ARROW else path.name
        return [ImageFile(f"{name}:{row}", int(chosen[row]), size) for row in shard.rows.tolist()]

    def _require_all_classes(self, part: str, found: set[int]) -> None:
        missing = [name for i, name in enumerate(self.classes) if i not in found]
        if missing:
            raise DataError(
                f"{self.root}: the {part} part has no image of {len(missing)} classes ({some_of(missing)}); add some"
            )

    def _identify(self, labels: Sequence[int]) -> None:
        digest, times = sha256("\n".join(self.classes).encode()), sha256()
        for shard in self.shards:
            stat = shard.path.stat()
            digest.update(f"\n{shard.part} {shard.path.name} {stat.st_size} {len(shard.rows)}".encode())
            times.update(f"{stat.st_mtime_ns} ".encode())
        digest.update(np.array(labels, dtype="<i8").tobytes())
        self.fingerprint = with_content(digest.hexdigest(), [shard.path for shard in self.shards])
        self.stamp = sha256(f"{self.root.resolve()} {self.fingerprint} {times.hexdigest()}".encode()).hexdigest()

    def encoded(self, chunk: int) -> Iterator[bytes]:
        shard, start, given = self.shards[chunk], 0, 0
        for column in _batches(shard.path, self.columns.image):
            end = start + len(column)
            while given < len(shard.rows) and shard.rows[given] < end:
                yield self._file(shard, int(shard.rows[given]), column[int(shard.rows[given]) - start].as_py())
                given += 1
            start = end

    def _file(self, shard: ParquetShard, row: int, value: Any) -> bytes:
        if not value or value.get("bytes") is None:
            raise DataError(f"{shard.path}, row {row}: no image bytes; store the images in the file, not their paths")
        return bytes(value["bytes"])

    def location(self, index: int) -> str:
        name, _, row = self.listing[index].path.rpartition(":")
        return f"{self.root}: row {row} of {name}"

    def sample(self) -> Iterator[bytes]:
        for shard in self.shards[:: -(-len(self.shards) // SAMPLED_SHARDS)]:
            for value in next(_batches(shard.path, self.columns.image), ()):
                if (held := value.as_py()) and held.get("bytes"):
                    yield held["bytes"]


@dataclass(frozen=True)
class Columns:
    image: str
    label: str


def _unreadable(path: Path, error: Exception) -> DataError:
    kind = "Arrow" if path.suffix == ARROW else "Parquet"
    return DataError(f"{path} cannot be read as {kind}: {(str(error) or type(error).__name__).splitlines()[0]}")


def read_schema(path: Path, label: str) -> tuple[Columns, list[str]]:
    """The image column, the label column and the class names, from the metadata that `datasets` writes."""
    from datasets import ClassLabel, Features, Image
    from pyarrow import ArrowException, parquet

    try:
        schema = schema_of(path) if path.suffix == ARROW else parquet.read_schema(path)
        features = Features.from_arrow_schema(schema)
    except (OSError, ValueError, ArrowException) as error:
        raise _unreadable(path, error) from error
    images = [name for name, kind in features.items() if isinstance(kind, Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    chosen = label if label in labels else labels[0] if len(labels) == 1 else None
    if len(images) != 1 or chosen is None:
        raise DataError(
            f"{path}: of the columns {', '.join(features)} its metadata mark {len(images)} as images and {len(labels)} "
            f"as classes; write it with Hugging Face datasets, with one of each (or a class column {label!r})"
        )
    return Columns(images[0], chosen), list(features[chosen].names)


def read_labels(path: Path, columns: Columns, names: Sequence[str]) -> NDArray[np.int64]:
    """The labels of a shard's rows. Raises DataError if one of them is not a class."""
    from pyarrow import ArrowException, Table, parquet

    try:
        arrow = path.suffix == ARROW
        table = (
            Table.from_batches(batches_of(path, [columns.label]))
            if arrow
            else parquet.read_table(path, columns=[columns.label])
        )
        column = table[columns.label]
        labels = np.asarray(column.to_numpy(), dtype=np.float64)  # a missing one is NaN
    except (OSError, KeyError, ArrowException) as error:
        raise _unreadable(path, error) from error
    wrong = np.flatnonzero(~((labels >= 0) & (labels < len(names))))
    if len(wrong):
        raise DataError(
            f"{path}: the label of row {wrong[0]} is {labels[wrong[0]]:g}, not in 0 to {len(names) - 1}; is this part "
            "unlabelled?"
        )
    return labels.astype(np.int64)


def _batches(path: Path, column: str) -> Iterator[Any]:
    """The values of a column, `ROWS_PER_READ` rows at a time."""
    from pyarrow import ArrowException, parquet

    if path.suffix == ARROW:
        for batch in batches_of(path, [column]):
            yield from (batch.column(0).slice(at, ROWS_PER_READ) for at in range(0, len(batch), ROWS_PER_READ))
        return
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_READ, columns=[column]):
                yield batch.column(0)
    except (OSError, ArrowException) as error:
        raise _unreadable(path, error) from error
