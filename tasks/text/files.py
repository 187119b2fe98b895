"""A corpus out of a folder of text files: which files are of which split, and what is held out where their names do not
say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

from tasks.base import DataError, Split
from tasks.storage.user_files import bytes_of, describe_files, files_below, of_other_kinds, reading, suffix_of
from tasks.text import json_lines, parquet
from tasks.text.documents import Block, Corpus, Piece, State, open_files, share_of, stream_rows
from tasks.text.held_out_lines import HELD_OUT, Range, gaps_of, place_lines, ranges_of, size_read

Format = Literal["parquet", "json", "text"]
SUFFIXES: Mapping[str, Format] = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}
NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
END = "end"  # of a file
FORM = 3  # 3: a state counts lines of JSON or files, where it was rows of a table
FILES, BLOCK = 100, 8 * 2**20  # files and characters that end a block, where each file is a document
MANY = 100  # text files from which on each is taken for a document among many


@dataclass(frozen=True)
class Part:
    """Files of one kind that are read in a row. `split` None: a pool that `missing` splits are held out of.

    lines: each file is one document, read line by line, and held out by position; otherwise a row (or a file) is a
    document.
    """

    files: tuple[Path, ...]
    kind: Format
    split: Split | None
    missing: tuple[Split, ...] = ()
    lines: bool = False


@dataclass(frozen=True)
class TextFiles(Corpus):
    """The documents of the files below a folder, in order of split, kind and path."""

    root: Path
    parts: tuple[Part, ...]
    text_field: str = "text"
    left_out: str = ""  # what is there and not read, in words

    @property
    def files(self) -> list[Path]:
        return [file for part in self.parts for file in part.files]

    @property
    def key(self) -> Mapping[str, Any]:
        listed = [
            [part.kind, part.split, part.missing, part.lines, describe_files(self.root, part.files)]
            for part in self.parts
        ]
        inside = {file.relative_to(self.root).as_posix(): sorted(splits) for file, splits in self.inside.items()}
        return {"form": FORM, "files": listed, "field": self.text_field, **({"inside lines": inside} if inside else {})}

    @cached_property
    def inside(self) -> Mapping[Path, frozenset[Split]]:
        """The splits that begin inside a line of a file: no line begins in their range of it, and it is long or no file
        has such a line.

        A small file of few lines may be all of training, as long as others have lines to hold out.
        """
        pools = [part for part in self.parts if part.missing]
        found: dict[Path, frozenset[Split]] = {}
        for part in (part for part in pools if part.lines):
            gaps = {file: gaps_of(file, part.missing) for file in part.files}
            nowhere = (
                frozenset(part.missing).intersection(*(gap.splits for gap in gaps.values()))
                if len(pools) == 1
                else frozenset()
            )
            found |= {file: gap.splits if gap.long else gap.splits & nowhere for file, gap in gaps.items()}
        return {file: splits for file, splits in found.items() if splits}

    @property
    def size(self) -> int:
        return sum(
            parquet.text_bytes(part.files, self.text_field) if part.kind == "parquet" else bytes_of(part.files)
            for part in self.parts
        )

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        first = state["part"] if state else 0
        for number, part in enumerate(self.parts[first:], first):
            inner = state["inner"] if state and number == first else None
            for block in self._read(part, inner):
                yield Block(block.pieces, {"part": number, "inner": block.state})

    def _read(self, part: Part, state: State | None) -> Iterator[Block]:
        if part.kind == "parquet":
            return self._read_parquet(part, state)
        if part.kind == "json":
            return self._read_json(part, state)
        return self._read_lines(part, state) if part.lines else self._read_whole(part, state)

    def _read_parquet(self, part: Part, state: State | None) -> Iterator[Block]:
        what = (
            str(part.files[0])
            if len(part.files) == 1
            else f"one of {part.files[0]} and {len(part.files) - 1} more files"
        )
        table = partial(parquet.open_column, part.files, self.text_field)
        for texts, behind in stream_rows(table, self.text_field, state, what):
            yield Block(_documents(texts, part), behind)

    def _read_whole(self, part: Part, state: State | None) -> Iterator[Block]:
        first = state["files"] if state else 0
        texts, read = list[str](), 0
        for number, file in enumerate(part.files[first:], first):
            texts.append(_text_of(file))
            read += len(texts[-1])
            if read >= BLOCK or len(texts) == FILES or number + 1 == len(part.files):
                yield Block(_documents(texts, part), {"files": number + 1})
                texts, read = [], 0

    def _read_json(self, part: Part, state: State | None) -> Iterator[Block]:
        first = state["file"] if state else 0
        for number, file in enumerate(part.files[first:], first):
            for texts, behind in json_lines.read_rows(
                file, self.text_field, state if state and number == first else None
            ):
                yield Block(_documents(texts, part), {"file": number, **behind})

    def _read_lines(self, part: Part, state: State | None) -> Iterator[Block]:
        first = state["file"] if state else 0
        for number, file in enumerate(part.files[first:], first):
            here = state if state and number == first else {"rows": None, "read": 0, "open": []}
            if here["rows"] == END:
                continue
            read, is_open, ranges = here["read"], list(here["open"]), self._ranges(file, part)
            lines_of = partial(open_files, [file], "text", keep_linebreaks=True)
            for lines, behind in stream_rows(lines_of, "text", here["rows"], str(file)):
                pieces, read = place_lines(lines, read, ranges)
                is_open = list(dict.fromkeys([*is_open, *(piece.split for piece in pieces)]))
                yield Block(pieces, {"file": number, "rows": behind, "read": read, "open": is_open})
            yield Block([Piece(split, "", True) for split in is_open], {"file": number, "rows": END})

    def _ranges(self, file: Path, part: Part) -> list[Range]:
        if part.split is not None:
            with (
                reading(file),
                file.open("rb"),
            ):  # where it cannot be read, that is told with what to do, and not by the library
                pass
            return [Range(0, float("inf"), part.split)]
        return ranges_of(size_read(file), part.missing, self.inside.get(file, ()))


def _text_of(file: Path) -> str:
    try:
        with reading(file):
            return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read: {error}; save it as UTF-8") from None


def _documents(texts: Sequence[str], part: Part) -> list[Piece]:
    """Texts that are a document each, in the split of their part or the one that each is held out for."""
    return [Piece(part.split or _held_out_by_text(text, part.missing), text, True) for text in texts]


def _held_out_by_text(text: str, missing: tuple[Split, ...]) -> Split:
    place = int(share_of(text) / HELD_OUT)
    return missing[place] if place < len(missing) else "train"


def find_text(root: Path, text_field: str) -> TextFiles:
    """The corpus of a folder, or of one file. Raises DataError where there is no text or its splits are ambiguous."""
    with reading(root):
        if not root.exists():
            raise DataError(f"{root} does not exist; pass --data-dir DIR with .txt, .jsonl or .parquet files")
        every = [root] if root.is_file() else files_below(root)
    files = [path for path in every if suffix_of(path.name) in SUFFIXES]
    if not files:
        some = ", ".join(path.name for path in every[:3]) or "nothing"
        raise DataError(f"{root} holds no text (there is: {some}); allowed are .txt, .jsonl and .parquet files")
    by_split: dict[Split | None, list[Path]] = {}
    for path in files:
        by_split.setdefault(_named_split(path, root), []).append(path)
    named = [split for split in get_args(Split) if split in by_split]
    if named and None in by_split:
        raise DataError(
            f"{root}: some files are named for a split, {by_split[None][0].name} is not; put train, valid or "
            "test into every name or none"
        )
    if named and "train" not in named:
        raise DataError(f"{root}: no file is named train, only {' and '.join(named)}")
    missing = tuple(split for split in get_args(Split) if split not in named) if named else ("valid", "test")
    parts: list[Part] = []
    for split in (None, *get_args(Split)):
        pool = split is None or (split == "train" and bool(missing))
        parts += _parts(by_split.get(split, []), None if pool else split, missing if pool else ())
    others = of_other_kinds(
        Counter(suffix for path in every if (suffix := suffix_of(path.name)) not in SUFFIXES), SUFFIXES
    )
    return TextFiles(
        root if root.is_dir() else root.parent, tuple(parts), text_field, f"left out: {others}" if others else ""
    )


def _parts(files: Sequence[Path], split: Split | None, missing: tuple[Split, ...]) -> list[Part]:
    made = []
    for kind in dict.fromkeys(SUFFIXES.values()):
        chosen = tuple(path for path in files if SUFFIXES[suffix_of(path.name)] == kind)
        if chosen:
            made.append(Part(chosen, kind, split, missing, lines=kind == "text" and len(chosen) < MANY))
    return made


def _named_split(path: Path, root: Path) -> Split | None:
    """The split that a file's path below the folder names: its own name first, then the folders it is in."""
    for part in reversed(path.relative_to(root).parts if path != root else (path.name,)):
        found = {NAMES[word] for word in re.split(r"[^a-z]+", part.lower()) if word in NAMES}
        if len(found) == 1:
            return found.pop()
    return None
