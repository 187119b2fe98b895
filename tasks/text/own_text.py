"""A user's own text: `text --data-dir FILE|FOLDER`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tasks.base import DataError, TaskOptions
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.files import TextFiles, find_text

TOLD = 3  # files, by name
HOW_TO = (
    "formats: a .txt file is a document, a row of .jsonl or .parquet is one; links are followed, what begins "
    "with a dot is left out",
    "text_field: which field of the rows holds the text (--set text_field=NAME)",
    "splits: by train, valid (validation, val, dev) or test in the names of files or folders; what no file is "
    "named for is held out of the "
    "training files, 5 % each: of every .txt file its end (whole lines, if it has enough), of rows (and of 100 "
    ".txt files or more) those "
    "drawn by a hash of their text",
)


class TextOptions(CorpusOptions):
    """Options of `text`."""

    text_field: str = Field(
        default="text", min_length=1, description="the field of .jsonl and .parquet files that holds the text"
    )


class OwnText(CorpusTask):
    """A folder of .txt (a file is a document), .jsonl and .parquet files (a row is one), or one such file.

    Files with train, valid (validation, val, dev) or test in their name, or in a folder's, belong to that split. What
    no file is named for is held out of the training files, 5 % for each: of every .txt file its end, cut between lines,
    or behind a blank where it has too few of them; of rows, and of a hundred .txt files or more, the documents whose
    text has the smallest hash, so that equal ones stay together.
    """

    name = "text"
    summary = "your own text: a folder of .txt, .jsonl or .parquet files, or one file (--data-dir DIR)"
    protocol = "text/1"
    licence = "yours"
    Options: ClassVar[type[TaskOptions]] = TextOptions
    options: TextOptions

    def _open_corpus(self) -> TextFiles:
        if self.data_dir is None:
            raise DataError(
                "text needs text: pass --data-dir DIR with .txt, .jsonl or .parquet files; to try the suite "
                "now: --task sotu"
            )
        return find_text(self.data_dir, self.options.text_field)

    def prepare_note(self) -> str:
        return "; ".join(note for note in (super().prepare_note(), self._text.left_out) if note)

    @property
    def _text(self) -> TextFiles:
        assert isinstance(self._corpus, TextFiles)
        return self._corpus

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        if self.data_dir is None:
            return "your own text: pass --data-dir DIR with .txt, .jsonl or .parquet files", HOW_TO
        files = self._text.files
        held_out = {split for part in self._text.parts for split in part.missing}
        how = (
            "split by the files' names"
            if not held_out
            else f"held out of the training files: {' and '.join(sorted(held_out))}"
        )
        files_cut = sorted(file.relative_to(self._text.root).as_posix() for file in self._text.inside)
        cut = ", ".join([*files_cut[:TOLD], *(["…"] if len(files_cut) > TOLD else [])])
        told = (f"cut inside a line, having too few of them: {cut}" if cut else "", self._text.left_out)
        return f"{self.data_dir.name}: {len(files)} file{'s' * (len(files) != 1)}", (
            how,
            *(note for note in told if note),
        )

    def _too_short(self, split: str, tokens: int, least: int) -> str:
        told = super()._too_short(split, tokens, least)
        named = [file for part in self._text.parts if part.split == split for file in part.files]
        if named:
            which = str(named[0]) if len(named) == 1 else f"{named[0]} and {len(named) - 1} more files named for it"
            instead = "" if split == "train" else ", or leave it out: 5 % of the training files are held out instead"
            return f"{told}; it is {which}: put more text there{instead}"
        return (
            f"{told}; give more text (of .jsonl and .parquet files more rows), or name files for train, valid and test"
        )
