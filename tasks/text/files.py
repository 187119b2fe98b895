"""The corpus of a folder of text files: the split of each file, and what is held out when the names give no split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

from tasks.base import DataError, Split
from tasks.storage.arrow_files import METADATA, require_whole
from tasks.storage.compressed import COMPRESSIONS
from tasks.storage.encodings import decoding, require_text
from tasks.storage.split_names import split_named_by
from tasks.storage.user_files import bytes_of, describe_files, describe_other_files, files_below, reading, suffix_of
from tasks.text.documents import Block, Corpus, Fragment, ReadState, hash_fraction, open_files, stream_rows
from tasks.text.formats import arrow, json_lines, parquet
from tasks.text.formats.names import (
    ENDINGS,
    FORMATS,
    LISTS,
    Format,
    ending_of,
    format_of,
    format_of_named,
    refuse_copies,
)
from tasks.text.held_out_lines import HELD_OUT, SplitRange, assign_lines, lineless_splits, size_as_read, split_ranges

END_OF_FILE = "end"
KEY_FORMAT = 3  # 3: a read state counts lines of JSON or files; 2 counted rows of a table
FILES_PER_BLOCK, CHARS_PER_BLOCK = 100, 8 * 2**20  # limits of a block when each file is a document
EXPANSION = 4  # bytes of text per byte of a compressed file, roughly
MIN_HASHED_FILES = 100  # from this many text files on, whole files are held out by a hash of their text


@dataclass(frozen=True)
class FileGroup:
    """Files of one format and one split, read one after the other.

    split: None if the `missing` splits are held out of these files.
    lines: each file is one document, read line by line, whose end is held out; otherwise whole rows (or whole files)
    are held out.
    """

    files: tuple[Path, ...]
    kind: Format
    split: Split | None
    missing: tuple[Split, ...] = ()
    lines: bool = False


@dataclass(frozen=True)
class TextFiles(Corpus):
    """The documents of the files below a folder, in order of split, format and path."""

    root: Path
    groups: tuple[FileGroup, ...]
    text_field: str = "text"
    ignored: str = ""  # one line about the files that are not read

    @property
    def files(self) -> list[Path]:
        return [file for group in self.groups for file in group.files]

    @property
    def key(self) -> Mapping[str, Any]:
        listed = [
            [group.kind, group.split, group.missing, group.lines, describe_files(self.root, group.files)]
            for group in self.groups
        ]
        cut = {file.relative_to(self.root).as_posix(): sorted(splits) for file, splits in self.cut_lines.items()}
        common = {"form": KEY_FORMAT, "files": listed, "field": self.text_field}
        return {**common, **({"inside lines": cut} if cut else {})}

    @cached_property
    def cut_lines(self) -> Mapping[Path, frozenset[Split]]:
        """For each file, the splits that begin inside one of its lines.

        No line begins in the range of such a split, and either the range is large or no file has a line there. Thus a
        small file of few lines is used for training as a whole, provided that other files have lines to hold out.
        """
        pools = [group for group in self.groups if group.missing]
        found: dict[Path, frozenset[Split]] = {}
        for group in (group for group in pools if group.lines):
            lineless = {file: lineless_splits(file, group.missing) for file in group.files}
            in_all_files = (
                frozenset(group.missing).intersection(*(one.splits for one in lineless.values()))
                if len(pools) == 1
                else frozenset()
            )
            found |= {file: one.splits if one.large else one.splits & in_all_files for file, one in lineless.items()}
        return {file: splits for file, splits in found.items() if splits}

    @property
    def size(self) -> int:
        return sum(self._text_bytes(group) for group in self.groups)

    def _text_bytes(self, group: FileGroup) -> int:
        if group.kind in ("parquet", "arrow"):
            return (parquet if group.kind == "parquet" else arrow).text_bytes(group.files, self.text_field)
        compressed = [file for file in group.files if suffix_of(file.name) in COMPRESSIONS]
        return bytes_of(group.files) + (EXPANSION - 1) * bytes_of(compressed)

    def blocks(self, state: ReadState | None = None) -> Iterator[Block]:
        first = state["part"] if state else 0
        for number, group in enumerate(self.groups[first:], first):
            inner = state["inner"] if state and number == first else None
            for block in self._read(group, inner):
                yield Block(block.fragments, {"part": number, "inner": block.state})

    def _read(self, group: FileGroup, state: ReadState | None) -> Iterator[Block]:
        if group.kind == "parquet":
            return self._read_parquet(group, state)
        if group.kind in ("json", "arrow"):
            return self._read_rows(group, state)
        return self._read_lines(group, state) if group.lines else self._read_whole(group, state)

    def _read_parquet(self, group: FileGroup, state: ReadState | None) -> Iterator[Block]:
        first, others = group.files[0], len(group.files) - 1
        what = f"one of {first} and {others} more files" if others else str(first)
        table = partial(parquet.open_column, group.files, self.text_field)
        for texts, after in stream_rows(table, self.text_field, state, what):
            yield Block(_documents(texts, group), after)

    def _read_whole(self, group: FileGroup, state: ReadState | None) -> Iterator[Block]:
        first = state["files"] if state else 0
        texts, read = list[str](), 0
        for number, file in enumerate(group.files[first:], first):
            texts.append(_text_of(file))
            read += len(texts[-1])
            if read >= CHARS_PER_BLOCK or len(texts) == FILES_PER_BLOCK or number + 1 == len(group.files):
                yield Block(_documents(texts, group), {"files": number + 1})
                texts, read = [], 0

    def _read_rows(self, group: FileGroup, state: ReadState | None) -> Iterator[Block]:
        read_rows = json_lines.read_rows if group.kind == "json" else arrow.read_rows
        first = state["file"] if state else 0
        for number, file in enumerate(group.files[first:], first):
            here = state if state and number == first else None
            for texts, after in read_rows(file, self.text_field, here):
                yield Block(_documents(texts, group), {"file": number, **after})

    def _read_lines(self, group: FileGroup, state: ReadState | None) -> Iterator[Block]:
        first = state["file"] if state else 0
        for number, file in enumerate(group.files[first:], first):
            here = state if state and number == first else {"rows": None, "read": 0, "open": []}
            if here["rows"] == END_OF_FILE:
                continue
            with reading(file):
                require_text(file)  # a file in UTF-16 without a mark would be read, with a zero in every character
            read, is_open, ranges = here["read"], list(here["open"]), self._ranges(file, group)
            lines_of = partial(open_files, [file], "text", keep_linebreaks=True)
            for lines, after in stream_rows(lines_of, "text", here["rows"], file):
                fragments, read = assign_lines(lines, read, ranges)
                is_open = list(dict.fromkeys([*is_open, *(fragment.split for fragment in fragments)]))
                yield Block(fragments, {"file": number, "rows": after, "read": read, "open": is_open})
            ends = [Fragment(split, "", True) for split in is_open]
            yield Block(ends, {"file": number, "rows": END_OF_FILE})

    def _ranges(self, file: Path, group: FileGroup) -> list[SplitRange]:
        if group.split is not None:
            return [SplitRange(0, float("inf"), group.split)]
        return split_ranges(size_as_read(file), group.missing, self.cut_lines.get(file, ()))


def _text_of(file: Path) -> str:
    with reading(file), decoding(file):
        text = file.read_text("utf-8")
        if "\0" in text:
            require_text(file)
    return text


def _documents(texts: Sequence[str], group: FileGroup) -> list[Fragment]:
    """Texts that are one document each, in the split of their group or, if it has none, the split of their hash."""
    return [Fragment(group.split or _held_out_by_text(text, group.missing), text, True) for text in texts]


def _held_out_by_text(text: str, missing: tuple[Split, ...]) -> Split:
    place = int(hash_fraction(text) / HELD_OUT)
    return missing[place] if place < len(missing) else "train"


def find_text(root: Path, text_field: str) -> TextFiles:
    """The corpus of a folder or of one file. Raises DataError if there is no text or the splits are ambiguous."""
    with reading(root):
        if not root.exists():
            raise DataError(f"{root} does not exist; pass --data-dir DIR with .txt, .jsonl or .parquet files")
        every = [root] if root.is_file() else files_below(root)
    kinds = _kinds(root, every)
    if not kinds:
        some = ", ".join(path.name for path in every[:3]) or "nothing"
        named = f"; to read one of them as text, name it: --data-dir {every[0]}" if every else ""
        raise DataError(f"{root} contains no text (found: {some}); pass .txt, .jsonl or .parquet files{named}")
    refuse_copies(list(kinds))
    require_whole([file for file, kind in kinds.items() if kind == "arrow"])
    by_split: dict[Split | None, list[Path]] = {}
    for path in kinds:
        by_split.setdefault(_named_split(path, root), []).append(path)
    groups = _groups(by_split, root, kinds)
    saved = METADATA if "arrow" in kinds.values() else ()
    others = Counter(suffix_of(path.name) for path in every if path not in kinds and path.name not in saved)
    ignored = f"ignored: {described}" if (described := describe_other_files(others, ENDINGS)) else ""
    return TextFiles(root if root.is_dir() else root.parent, groups, text_field, ignored)


def _kinds(root: Path, every: Sequence[Path]) -> dict[Path, Format]:
    """The format of each file that is read, in order.

    A file that is named by itself, or is alone in the folder and has no suffix, is text whatever its name. `.json`
    files next to other text are taken for settings.
    """
    if every == [root] or (len(every) == 1 and not suffix_of(every[0].name)):
        return {every[0]: format_of_named(every[0])}
    kinds = {path: kind for path in every if (kind := format_of(path))}
    if "arrow" in kinds.values():
        kinds = {path: kind for path, kind in kinds.items() if path.name not in METADATA}
    lists = {path for path in kinds if ending_of(path.name) in LISTS}
    return kinds if len(lists) == len(kinds) else {path: kind for path, kind in kinds.items() if path not in lists}


def _groups(
    by_split: Mapping[Split | None, Sequence[Path]], root: Path, kinds: Mapping[Path, Format]
) -> tuple[FileGroup, ...]:
    """The files grouped by split and format. Raises DataError if the splits are ambiguous."""
    named = [split for split in get_args(Split) if split in by_split]
    if named and None in by_split:
        one = by_split[named[0]][0].relative_to(root).as_posix()
        raise DataError(
            f"{root}: some file names contain a split ({one}: {named[0]}), {by_split[None][0].name} does not; put "
            "train, valid or test into all names or none"
        )
    if named and "train" not in named:
        raise DataError(f"{root}: the file names contain only {' and '.join(named)}; name the training files train")
    missing = tuple(split for split in get_args(Split) if split not in named) if named else ("valid", "test")
    groups: list[FileGroup] = []
    for split in (None, *get_args(Split)):
        pool = split is None or (split == "train" and bool(missing))
        groups += _by_format(by_split.get(split, []), kinds, None if pool else split, missing if pool else ())
    return tuple(groups)


def _by_format(
    files: Sequence[Path], kinds: Mapping[Path, Format], split: Split | None, missing: tuple[Split, ...]
) -> list[FileGroup]:
    groups = []
    for kind in FORMATS:
        chosen = tuple(path for path in files if kinds[path] == kind)
        if chosen:
            by_lines = kind == "text" and len(chosen) < MIN_HASHED_FILES
            groups.append(FileGroup(chosen, kind, split, missing, by_lines))
    return groups


def _named_split(path: Path, root: Path) -> Split | None:
    """The split in a file's path below the folder: its own name counts first, then the innermost folder. A single file
    has none.
    """
    for part in reversed(path.relative_to(root).parts if path != root else ()):
        if (split := split_named_by(part)) is not None:
            return split
    return None
