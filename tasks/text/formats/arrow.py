"""One text column of Arrow files, as `save_to_disk` of Hugging Face `datasets` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.base import DataError
from tasks.storage.arrow_files import batches_of, schema_of
from tasks.storage.user_files import reading
from tasks.text.documents import ReadState
from tasks.text.formats.columns import require_text_column


def read_rows(file: Path, field: str, state: ReadState | None = None) -> Iterator[tuple[list[str], ReadState]]:
    """The texts of a file, one list for each of its batches of rows, with the state after it.

    Args:
        file: The Arrow file.
        field: The column that holds the text; null is an empty text.
        state: Where to resume; None: at the beginning.

    Yields:
        Texts and state.

    Raises:
        DataError: The file is damaged, or the column does not hold text.
    """
    with reading(file), file.open("rb"):  # reports an unreadable file better than the library would
        pass
    require_text_column(file, schema_of(file), field)
    done = state["batches"] if state else 0
    for number, batch in enumerate(batches_of(file, [field])):
        if number < done:
            continue
        try:
            texts = [text or "" for text in batch.column(0).to_pylist()]
        except UnicodeDecodeError:
            raise DataError(f"{file} cannot be read: its field {field!r} is not UTF-8; save it again") from None
        yield texts, {"batches": number + 1}


def text_bytes(files: Sequence[Path], field: str) -> int:
    """Bytes of text in the column `field`. Raises DataError."""
    total = 0
    for file in files:
        require_text_column(file, schema_of(file), field)
        total += sum(batch.nbytes for batch in batches_of(file, [field]))
    return total
