"""Arrow files as Hugging Face `datasets` saves them: `save_to_disk` writes a folder of them for each split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.errors import DataError

ARROW = ".arrow"
#: What `save_to_disk` writes next to the data.
METADATA = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.arrow")


def schema_of(file: Path) -> Any:
    """The Arrow schema of a file, with the metadata that `datasets` adds. Raises DataError."""
    with _reader(file) as reader:
        return reader.schema


def batches_of(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The record batches of a file in order, with some of its columns only; the file is memory-mapped. Raises
    DataError.
    """
    with _reader(file) as reader:
        # a stream is read one batch after the other, a file of random access by the number of the batch
        every = (
            reader if hasattr(reader, "read_next_batch") else map(reader.get_batch, range(reader.num_record_batches))
        )
        for batch in every:
            yield batch.select(list(columns))


@contextmanager
def _reader(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as content:
            try:
                reader = pa.ipc.open_stream(content)
            except pa.ArrowInvalid:
                reader = pa.ipc.open_file(content)
            yield reader
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} cannot be read: it is not a whole Arrow file ({reason}); save it again") from error


def require_whole(files: Sequence[Path]) -> None:
    """Checks the folders of some Arrow files.

    Args:
        files: All Arrow files that are read.

    Raises:
        DataError: A shard is missing, or a folder needs an index of rows, which old versions of `datasets` saved.
    """
    for folder in sorted({file.parent for file in files}):
        found = {file.name for file in files if file.parent == folder}
        if missing := sorted(_expected(folder, found) - found):
            raise DataError(f"{folder} lacks {missing[0]}; copy all files of the folder, or save it again")


def _expected(folder: Path, found: set[str]) -> set[str]:
    """The names of the files that a folder must have, from its state.json, else from the numbers in the names."""
    state = folder / "state.json"
    if state.is_file():
        try:
            saved = json.loads(state.read_text("utf-8"))
            names = {entry["filename"] for entry in saved["_data_files"]}
            indices = saved.get("_indices_data_files") or saved.get("_indices_files")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{state} cannot be read: it is not the state of a saved data set; save it again") from None
        if indices:
            raise DataError(
                f"{folder} was saved with an index of its rows; save it again after flatten_indices() of datasets"
            )
        return names
    shards = [shard for name in found if (shard := SHARD.fullmatch(name))]
    return {
        f"{shard['stem']}-{number:05}-of-{shard['count']}.arrow"
        for shard in shards
        for number in range(int(shard["count"]))
    }
