"""A user's own text: `text --data-dir FILE|FOLDER`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tasks.base import DataError, TaskOptions
from tasks.corpus import CorpusOptions, CorpusTask
from tasks.text_files import TextFiles, find_text


class TextOptions(CorpusOptions):
    """Options of `text`."""

    text_field: str = Field(default="text", min_length=1, description="the field of .jsonl and .parquet files that holds the text")


class OwnText(CorpusTask):
    """A folder of .txt (a file is a document), .jsonl and .parquet files (a row is one), or one such file.

    Files with train, valid (validation, val, dev) or test in their name, or in a folder's, belong to that split. What no file is named
    for is held out of the training files, 5 % for each: of every .txt file its end, cut between lines; of rows, and of a hundred .txt
    files or more, the documents whose text has the smallest hash, so that equal ones stay together.
    """

    name = "text"
    summary = "your own text: a folder of .txt, .jsonl or .parquet files, or one file (--data-dir DIR)"
    protocol = "text/1"
    licence = "yours"
    Options: ClassVar[type[TaskOptions]] = TextOptions
    options: TextOptions

    def _open_corpus(self) -> TextFiles:
        if self.data_dir is None:
            raise DataError("text needs text: pass --data-dir DIR with .txt, .jsonl or .parquet files; to try the suite now: --task sotu")
        return find_text(self.data_dir, self.options.text_field)

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        if self.data_dir is None:
            return "your own text: pass --data-dir DIR with .txt, .jsonl or .parquet files", ()
        files = self._corpus.files  # type: ignore[attr-defined]
        held_out = {split for part in self._corpus.parts for split in part.missing}  # type: ignore[attr-defined]
        how = "split by the files' names" if not held_out else f"held out of the training files: {' and '.join(sorted(held_out))}"
        return f"{self.data_dir.name}: {len(files)} file{'s' * (len(files) != 1)}", (how,)

    def _too_short(self, split: str, tokens: int, least: int) -> str:
        return f"{super()._too_short(split, tokens, least)}; give more text, or name files for train, valid and test"
