"""Which bytes of a text file belong to which split: the end of the file is held out, cut between lines.

It is cut inside a line only where that line is too long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from tasks.base import Split
from tasks.storage.user_files import reading
from tasks.text.documents import Fragment

HELD_OUT = 0.05  # fraction of the training files held out for each of validation and test that has no files
READ_BYTES = 2**20  # bytes read at a time
FULL_SEARCH_BYTES = 16 * READ_BYTES  # larger files are first probed for line ends in a few places
MIN_CUT_BYTES = 2**16  # a held-out range of this size is cut from inside a line even if other files have short lines
WHITESPACE = re.compile(rb"\s")  # one byte, which is part of no longer UTF-8 character


@dataclass(frozen=True)
class SplitRange:
    """Byte range of a file whose lines, by their first byte, belong to a split.

    `cuts_lines`: no line begins in the range, so a line that reaches into it is cut.
    """

    start: float
    end: float
    split: Split
    cuts_lines: bool = False


@dataclass(frozen=True)
class LinelessSplits:
    """The held-out splits in whose range of a file no line begins; `large`: a range has `MIN_CUT_BYTES` or more."""

    splits: frozenset[Split]
    large: bool


def split_ranges(size: int, missing: Sequence[Split], cutting: Collection[Split] = ()) -> list[SplitRange]:
    """The training range of a file of `size` bytes, then one range for each split that has no files.

    The ranges of the splits in `cutting` cut lines.
    """
    train = 1 - HELD_OUT * len(missing)
    ends = [size * (train + HELD_OUT * n) for n in range(len(missing))]
    places = zip((0.0, *ends), (*ends, float("inf")), ("train", *missing), strict=True)
    return [SplitRange(start, end, split, split in cutting) for start, end, split in places]


def assign_lines(lines: Sequence[str], read: int, ranges: Sequence[SplitRange]) -> tuple[list[Fragment], int]:
    """Joins lines to one fragment per split; also returns the number of bytes read up to their end.

    `read`: bytes of the file before the first line. A line belongs to the split in whose range it begins, except that
    a range which cuts lines takes the rest of a line from its start on.
    """
    texts: dict[Split, list[str]] = {}
    cutting = [one for one in ranges if one.cuts_lines]
    for line in lines:
        data = line.encode("utf-8", "replace")
        splits = [next(one.split for one in ranges if read < one.end)]
        started = [one for one in cutting if read < one.start < read + len(data)]
        if started:
            splits += [one.split for one in started]
            places = [0, *(_cut(data, read, one) for one in started), len(data)]
            for split, start, end in zip(splits, places[:-1], places[1:], strict=True):
                texts.setdefault(split, []).append(data[start:end].decode("utf-8"))
        else:
            texts.setdefault(splits[0], []).append(line)
        read += len(data)
    return [Fragment(split, "".join(parts), False) for split, parts in texts.items()], read


def _cut(line: bytes, read: int, within: SplitRange) -> int:
    """Where the range cuts a line that begins at byte `read` of the file.

    After the first white space in the first half of the range's part of the line, else at the next character.
    """
    at = ceil(within.start - read)
    space = WHITESPACE.search(line, at, at + int(min(within.end - within.start, read + len(line) - within.start) / 2))
    if space:
        return space.end()
    while at < len(line) and line[at] & 0xC0 == 0x80:  # inside a character
        at += 1
    return at


def size_as_read(file: Path) -> int:
    """Bytes of a text file as its lines are read: the line end CR LF counts as one byte."""
    size, before = 0, b""
    with reading(file), file.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            pairs = chunk.count(b"\r\n") + (before == b"\r" and chunk.startswith(b"\n"))
            size += len(chunk) - pairs
            before = chunk[-1:]
    return size


def lineless_splits(file: Path, missing: tuple[Split, ...]) -> LinelessSplits:
    """The held-out splits in whose range of the file no line begins. Raises DataError."""
    with reading(file):
        status = os.stat(file)
    return _lineless_splits(file, missing, status.st_size, status.st_mtime_ns)


@cache  # a process searches each file once
def _lineless_splits(file: Path, missing: tuple[Split, ...], size: int, changed: int) -> LinelessSplits:
    if size > FULL_SEARCH_BYTES and _has_short_lines(file, len(missing), size):
        return LinelessSplits(frozenset(), large=False)
    total = size_as_read(file)
    held_out = split_ranges(total, missing)[1:]
    lineless = frozenset(
        one.split for one in held_out if not _has_line_start(file, ceil(one.start), ceil(min(one.end, total)))
    )
    return LinelessSplits(lineless, large=total * HELD_OUT >= MIN_CUT_BYTES)


def _has_short_lines(file: Path, ranges: int, size: int) -> bool:
    """Whether a line ends in the middle of each held-out range; reads a few places of the file only."""
    with reading(file), file.open("rb") as stream:
        for n in range(ranges):
            stream.seek(int(size * (1 - HELD_OUT * (n + 0.6))))
            if not re.search(rb"[\r\n]", stream.read(min(READ_BYTES, int(size * HELD_OUT * 0.2)))):
                return False
    return True


def _has_line_start(file: Path, start: int, end: int) -> bool:
    """Whether a line begins in bytes `start` to `end` − 1, counted with line ends of one byte."""
    at = 0
    with reading(file), file.open(encoding="latin-1") as stream:  # one character per byte, line ends translated
        while at < end and (chunk := stream.read(READ_BYTES)):
            if chunk.find("\n", max(start - 1 - at, 0), max(end - 1 - at, 0)) >= 0:
                return True
            at += len(chunk)
    return False
