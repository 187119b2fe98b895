"""The format of a file of text by the end of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from tasks.base import DataError
from tasks.storage.compressed import COMPRESSIONS
from tasks.storage.user_files import suffix_of

Format = Literal["text", "json", "parquet", "arrow"]
#: In the order in which the formats of a split are read.
ENDINGS: Mapping[str, Format] = {
    ".txt": "text",
    ".jsonl": "json",
    ".json": "json",
    **{f"{ending}{compressed}": "json" for ending in (".jsonl", ".json") for compressed in COMPRESSIONS},
    ".parquet": "parquet",
    ".arrow": "arrow",
}
FORMATS = tuple(dict.fromkeys(ENDINGS.values()))
#: Endings of JSON files that are often settings: they are text only where there is no other text.
LISTS = (".json", *(f".json{compressed}" for compressed in COMPRESSIONS))


def ending_of(name: str) -> str:
    """The end of a file's name in small letters: `.txt`, or `.jsonl.gz` with the suffix of a compression."""
    last = suffix_of(name)
    return f"{suffix_of(name.removesuffix(name[-len(last) :]))}{last}" if last in COMPRESSIONS else last


def format_of(file: Path) -> Format | None:
    """The format of a file in a folder of text; None if its name is not that of a text."""
    return ENDINGS.get(ending_of(file.name))


def format_of_named(file: Path) -> Format:
    """The format of a file that the user names by itself: a name of no format is that of a text.

    Args:
        file: The file.

    Returns:
        Its format.

    Raises:
        DataError: It is compressed text, which is not read.
    """
    found = format_of(file)
    if found is None and suffix_of(file.name) in COMPRESSIONS:
        tool = "gunzip -k" if file.suffix.lower() == ".gz" else "zstd -d"
        raise DataError(
            f"{file} is compressed; only .jsonl and .json files are read so. Decompress it: {tool} {file.name}"
        )
    return found or "text"


def refuse_copies(files: Sequence[Path]) -> None:
    """Raises DataError if a file is there twice, compressed and not."""
    every = set(files)
    for file in files:
        if file.suffix.lower() in COMPRESSIONS and (plain := file.with_suffix("")) in every:
            raise DataError(f"{file} and {plain.name} would be the same text twice; remove one of them")
