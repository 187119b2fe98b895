"""Reads compressed files: gzip (`.gz`) and Zstandard (`.zst`), by the end of the name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tasks.errors import DataError

COMPRESSIONS = (".gz", ".zst")


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The content of a file as a stream of bytes, decompressed where its name ends in `.gz` or `.zst`.

    Args:
        file: The file.

    Yields:
        The stream, which can be read and has lines. What reads it may raise OSError too.

    Raises:
        DataError: The compressed content is damaged or truncated.
        OSError: The file cannot be opened.
    """
    suffix = file.suffix.lower()
    if suffix not in COMPRESSIONS:
        with file.open("rb") as stream:
            yield stream
        return
    with file.open("rb"):  # an unreadable file is not a damaged one
        pass
    try:
        with _decompressing(file, suffix) as stream:
            yield stream
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        kind = "gzip" if suffix == ".gz" else "Zstandard"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file} cannot be read: it is not a whole {kind} file ({reason}); copy or compress it again"
        ) from error


def _decompressing(file: Path, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(file))
    import pyarrow as pa

    return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(str(file), "zstd"), 2**20))
