"""A user's own text: `text --data-dir FILE|FOLDER`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tasks.base import DataError, TaskOptions
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.files import TextFiles, find_text

MAX_NAMED_FILES = 3
HOW_TO = (
    "formats: a document is a .txt file, or a row of a .jsonl or .parquet file, of a folder that save_to_disk of "
    "Hugging Face datasets wrote, or of .json files where there is no other text; .jsonl and .json may be compressed "
    "(.gz, .zst); a file named by itself is text whatever its name",
    "names: links are followed, names that begin with a dot are ignored",
    "text_field: the field of the rows that holds the text (--set text_field=NAME)",
    "splits: from the words train, valid (validation, val, dev) or test in the names of files or folders; a missing "
    "split is 5 % of the training files: the end of every .txt file (whole lines if it has enough), or rows (and whole "
    "files from 100 .txt files on) chosen by a hash of their text",
)


class TextOptions(CorpusOptions):
    """Options of `text`."""

    text_field: str = Field(
        default="text", min_length=1, description="the field of .jsonl and .parquet files that holds the text"
    )


class OwnText(CorpusTask):
    """A folder of .txt files (one document each), of rows in .jsonl, .parquet or other formats (one document each), or
    one such file.

    Files with train, valid (validation, val, dev) or test in their name, or in a folder's name, belong to that split. A
    split without files is held out of the training files, 5 % for each: the end of every .txt file, cut between lines,
    or after white space if it has too few of them. Of rows, and of .txt files if there are a hundred or more, the
    documents whose text has the smallest hash are held out, so that equal documents stay together.
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
        return "; ".join(note for note in (super().prepare_note(), self._text.ignored) if note)

    @property
    def _text(self) -> TextFiles:
        assert isinstance(self._corpus, TextFiles)
        return self._corpus

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        if self.data_dir is None:
            return "your own text: pass --data-dir DIR with .txt, .jsonl or .parquet files", HOW_TO
        count = len(self._text.files)
        held_out = {split for group in self._text.groups for split in group.missing}
        by_name = "split by the names of the files"
        splits = f"held out of the training files: {' and '.join(sorted(held_out))}" if held_out else by_name
        notes = (splits, self._cut_lines_note(), self._text.ignored)
        return f"{self.data_dir.name}: {count} file{'s' * (count != 1)}", tuple(note for note in notes if note)

    def _cut_lines_note(self) -> str:
        files = sorted(file.relative_to(self._text.root).as_posix() for file in self._text.cut_lines)
        named = ", ".join([*files[:MAX_NAMED_FILES], *(["…"] if len(files) > MAX_NAMED_FILES else [])])
        return f"cut inside a line because they have too few lines: {named}" if named else ""

    def _too_short(self, split: str, tokens: int, minimum: int) -> str:
        problem = super()._too_short(split, tokens, minimum)
        named = [file for group in self._text.groups if group.split == split for file in group.files]
        if named:
            which = str(named[0]) if len(named) == 1 else f"{named[0]} and {len(named) - 1} more files of this split"
            instead = "" if split == "train" else ", or leave it out to hold out 5 % of the training files"
            return f"{problem}; it is {which}: put more text there{instead}"
        return (
            f"{problem}; pass more text (more rows of .jsonl and .parquet files), or name files train, valid and test"
        )
