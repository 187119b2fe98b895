"""One text column of Parquet files: its size and rows from the files' footers, its texts through `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.base import DataError
from tasks.storage.user_files import reading
from tasks.text.documents import open_files
from tasks.text.formats.columns import require_text_column


def open_column(files: Sequence[Path], field: str) -> Any:
    """A streamed table of the column `field` alone; the files may differ in every other column.

    Raises DataError, which names the file, when one of them has no such column or the column does not hold text.
    """
    from datasets import Features, Value

    for file in files:
        require_text_column(file, _open(file).schema_arrow, field)
    return open_files(files, "parquet", columns=[field], features=Features({field: Value("large_string")}))


def text_bytes(files: Sequence[Path], field: str) -> int:
    """Approximate bytes of text in the column `field`, from the files' footers. Raises DataError."""
    total = 0
    for file in files:
        footer = _open(file).metadata
        for group in map(footer.row_group, range(footer.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            total += sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == field)
    return total


def count_rows(file: Path) -> int:
    """Number of rows of a file. Raises DataError."""
    return int(_open(file).metadata.num_rows)


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with reading(file):
            return pq.ParquetFile(file)
    except pa.ArrowException as error:
        raise DataError(f"{file} cannot be read: it is not a Parquet file ({str(error).splitlines()[0]})") from None
