"""The interface of a text corpus: a stream of documents that never sits in memory as a whole and can be resumed.

Also reads tables of text through Hugging Face `datasets`.
"""

from __future__ import annotations

import glob
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from tasks.base import DataError, Split
from tasks.storage.encodings import not_utf8

ROWS_PER_BLOCK = 1000
ReadState = Mapping[str, Any]  # JSON values: where to resume reading
Progress = Callable[[int, int], None]  # called with (done, total)


@dataclass(frozen=True)
class Fragment:
    """A document's text or a part of it; `ends` is True for the document's last fragment."""

    split: Split
    text: str
    ends: bool


@dataclass(frozen=True)
class Block:
    """Consecutive fragments of a corpus, and the state from which reading resumes after them."""

    fragments: Sequence[Fragment]
    state: ReadState


class Corpus(ABC):
    """Documents of all splits in one fixed order."""

    #: Validation and test come before the training part, so that a prefix of the training part can be used alone.
    held_out_first: bool = False

    @property
    @abstractmethod
    def key(self) -> Mapping[str, Any]:
        """JSON values that identify this corpus without reading all of it: the key of its cache."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Approximate bytes of text; 0 if unknown."""

    def origin(self, state: ReadState | None) -> Mapping[str, str]:
        """Where the text was read from, by name, according to a block's state (such as the hub's commit)."""
        return {}

    @abstractmethod
    def blocks(self, state: ReadState | None = None) -> Iterator[Block]:
        """All blocks, or those after the block that has this state. Raises DataError."""


def stream_rows(
    open_table: Callable[[], Any], field: str, state: ReadState | None, what: str | Path
) -> Iterator[tuple[list[str], ReadState]]:
    """The texts of a streamed `datasets` table, `ROWS_PER_BLOCK` at a time, each list with the state after it.

    `what` names the table in errors; a path is that of a file of text, whose encoding errors name. Raises DataError
    with the library's reason when a file or the network fails.
    """
    from datasets.exceptions import DatasetsError

    try:
        table = open_table()
        columns = table.column_names or list(next(iter(table), {}))  # some tables know their columns only after a read
        if columns and field not in columns:
            raise DataError(
                f"{what} has no field {field!r} (fields: {', '.join(columns)}); choose one: --set text_field=NAME"
            )
        table = table.select_columns([field]).with_format("arrow")
        if state is not None:
            table.load_state_dict(json.loads(json.dumps(state)))  # a copy: the library modifies its argument
        for rows in table.iter(ROWS_PER_BLOCK):
            texts = [
                text if isinstance(text, str) else _empty_text(text, field, what) for text in rows[field].to_pylist()
            ]
            yield texts, json.loads(json.dumps(table.state_dict()))
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, DatasetsError, *_network_errors()) as error:
        cause = error.__cause__ or error
        if isinstance(cause, UnicodeDecodeError) and isinstance(what, Path):
            raise not_utf8(what) from None
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:300]
        raise DataError(f"{what} cannot be read: {reason}") from error


def _empty_text(value: object, field: str, what: str | Path) -> str:
    """The text of a null value. Raises DataError for any other value."""
    if value is None:
        return ""
    raise DataError(
        f"{what}: the field {field!r} holds {type(value).__name__} values, not text; choose another field: "
        "--set text_field=NAME"
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """The errors of the HTTP library that the hub's client uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(c for c in HfHubHTTPError.__mro__ if issubclass(c, Exception) and c is not Exception)


def open_files(files: Sequence[Path], kind: Literal["parquet", "text"], **options: Any) -> Any:
    """A streamed table of local files, which the library does not copy into its own cache."""
    from datasets import load_dataset

    names = [glob.escape(str(file)) for file in files]  # the library reads names as patterns
    return load_dataset(kind, data_files={"train": names}, split="train", streaming=True, **options)


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that depends on a document's text only, so that equal documents fall into the same split."""
    return int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:6], "big") / 2**48
