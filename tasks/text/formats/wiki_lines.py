"""WikiText in its classic files, one line per row: `wiki.train.raw`, `wiki.train.tokens` or `train.txt`, and the same
for `valid` and `test`.

The raw files hold the text of the hub's Parquet files. In the others, rare words are `<unk>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from tasks.base import DataError, Split
from tasks.storage.encodings import require_text
from tasks.storage.user_files import reading
from tasks.text.documents import open_files

#: Names of the three files, those of the raw text first.
NAMES = ("wiki.{}.raw", "wiki.{}.tokens", "{}.txt")
UNKNOWN_WORD = b" <unk> "
READ_BYTES = 4 * 2**20


def find_files(places: Sequence[Path]) -> Mapping[Split, tuple[Path, ...]] | None:
    """The three files, in the first folder that has one of them.

    Args:
        places: Folders where they may be.

    Returns:
        The file of each split; None if there are none.

    Raises:
        DataError: Some of the three are missing.
    """
    for place in places:
        for name in NAMES:
            paths = {split: place / name.format(split) for split in get_args(Split)}
            with reading(place):
                missing = [path.name for path in paths.values() if not path.is_file()]
            if not missing:
                return {split: (path,) for split, path in paths.items()}
            if len(missing) < len(paths):
                raise DataError(f"{place} lacks {' and '.join(missing)}; copy the three files of WikiText")
    return None


def is_lines(path: Path) -> bool:
    """Whether it is one of the classic files."""
    return path.suffix != ".parquet"


def opener(path: Path) -> Any:
    """A function that opens the file as a streamed table of its lines. Raises DataError if it is not text."""
    with reading(path):
        require_text(path)
    return partial(open_files, [path], "text", keep_linebreaks=True)


def rows_of(lines: Sequence[str]) -> list[str]:
    """Lines as the hub's rows: a line of white space is an empty row."""
    return [line if line.strip() else "" for line in lines]


def count_lines(path: Path) -> int:
    """The number of lines of a file. Raises DataError."""
    count, last = 0, b"\n"
    with reading(path), path.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")


def has_unknown_words(path: Path) -> bool:
    """Whether rare words are `<unk>` at the beginning of a file. Raises DataError."""
    with reading(path), path.open("rb") as stream:
        return UNKNOWN_WORD in stream.read(READ_BYTES)
