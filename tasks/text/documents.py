"""What a corpus is: documents streamed in blocks, never held as a whole, resumable behind each; and tables of them
through `datasets`.
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

ROWS = 1000  # of a block
State = Mapping[str, Any]  # JSON values: where to go on
Progress = Callable[[int, int], None]  # of what is done and what there is in all


@dataclass(frozen=True)
class Piece:
    """A document's text or a part of it; `ends` where the document does."""

    split: Split
    text: str
    ends: bool


@dataclass(frozen=True)
class Block:
    """Some pieces in the corpus's order, and the state to go on with behind them."""

    pieces: Sequence[Piece]
    state: State


class Corpus(ABC):
    """Documents of all splits in one fixed order."""

    held_out_first: bool = (
        False  # validation and test stand before the training part, of which a beginning may then be used alone
    )

    @property
    @abstractmethod
    def key(self) -> Mapping[str, Any]:
        """What tells this corpus from others without reading it: JSON values."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of text, about; 0 where nobody knows."""

    def origin(self, state: State | None) -> Mapping[str, str]:
        """What a block's state tells of where the text was read, by name."""
        return {}

    @abstractmethod
    def blocks(self, state: State | None = None) -> Iterator[Block]:
        """All pieces, or those behind a block's state. Raises DataError."""


def stream_rows(source: Any, field: str, state: State | None, what: str) -> Iterator[tuple[list[str], State]]:
    """The texts of a streamed `datasets` table, `ROWS` at a time, each with the state behind it. `source()` opens the
    table.

    Raises DataError, with the library's reason, where the files or the network give out.
    """
    from datasets.exceptions import DatasetsError

    try:
        table = source()
        columns = table.column_names or list(next(iter(table), {}))  # it may know none before it has read some
        if columns and field not in columns:
            raise DataError(
                f"{what} has no field {field!r} (there are: {', '.join(columns)}); name it: --set text_field=NAME"
            )
        table = table.select_columns([field]).with_format("arrow")
        if state is not None:
            table.load_state_dict(json.loads(json.dumps(state)))  # the library changes what it is given
        for rows in table.iter(ROWS):
            texts = [text if isinstance(text, str) else _refuse(text, field, what) for text in rows[field].to_pylist()]
            yield texts, json.loads(json.dumps(table.state_dict()))
    except DataError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, DatasetsError, *_network_errors()) as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:300]
        raise DataError(f"{what} cannot be read: {reason}") from error


def _refuse(value: object, field: str, what: str) -> str:
    if value is None:
        return ""
    raise DataError(
        f"{what}: the field {field!r} holds {type(value).__name__} values, text is needed; name another: --set "
        "text_field=NAME"
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """The errors of whichever HTTP library the hub's client uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(c for c in HfHubHTTPError.__mro__ if issubclass(c, Exception) and c is not Exception)


def open_files(files: Sequence[Path], kind: Literal["parquet", "text"], **options: Any) -> Any:
    """A streamed table of local files; nothing of it is copied into the library's own cache."""
    from datasets import load_dataset

    names = [glob.escape(str(file)) for file in files]  # the library takes names for patterns
    return load_dataset(kind, data_files={"train": names}, split="train", streaming=True, **options)


def share_of(text: str) -> float:
    """A number in [0, 1) that depends on a document's text alone: equal documents fall into the same split."""
    return int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:6], "big") / 2**48
