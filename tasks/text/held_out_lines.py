"""Which part of a text file is of which split: held out is its end, cut between lines, and inside a line only where it
is too long.
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
from tasks.text.documents import Piece

HELD_OUT = 0.05  # of a pool for each of validation and test that no file is named for
CHUNK = 2**20  # bytes
SEARCHED_WHOLE = (
    16 * CHUNK
)  # bytes of a file in which a line's begin is looked for everywhere; in a larger one, first in few places
LONG = (
    2**16
)  # bytes of a held-out range without the begin of a line from which on it is cut off, whatever other files have
BLANK = re.compile(rb"\s")  # of one byte: none of UTF-8's longer characters has such a byte


@dataclass(frozen=True)
class Range:
    """Bytes of a file, as its lines are read, and the split of the lines that begin there; `inside`: a line that
    reaches there is cut.
    """

    start: float
    end: float
    split: Split
    inside: bool = False


@dataclass(frozen=True)
class Gaps:
    """The held-out splits in whose range of a file no line begins; `long`: such a range has `LONG` bytes or more."""

    splits: frozenset[Split]
    long: bool


def ranges_of(size: int, missing: Sequence[Split], inside: Collection[Split] = ()) -> list[Range]:
    """The training range of a file of `size` bytes, and behind it one for each split that is missing."""
    train = 1 - HELD_OUT * len(missing)
    ends = [size * (train + HELD_OUT * n) for n in range(len(missing))]
    places = zip((0.0, *ends), (*ends, float("inf")), ("train", *missing), strict=True)
    return [Range(start, end, split, split in inside) for start, end, split in places]


def place_lines(lines: Sequence[str], read: int, ranges: Sequence[Range]) -> tuple[list[Piece], int]:
    """Lines joined to one piece a split, and the bytes read by then. A line belongs where it begins, unless a range
    begins inside it.
    """
    texts: dict[Split, list[str]] = {}
    inside = [found for found in ranges if found.inside]
    for line in lines:
        data = line.encode("utf-8", "replace")
        splits = [next(found.split for found in ranges if read < found.end)]
        begun = [found for found in inside if read < found.start < read + len(data)]
        if begun:
            splits += [found.split for found in begun]
            places = [0, *(_cut(data, read, found) for found in begun), len(data)]
            for split, at, end in zip(splits, places[:-1], places[1:], strict=True):
                texts.setdefault(split, []).append(data[at:end].decode("utf-8"))
        else:
            texts.setdefault(splits[0], []).append(line)
        read += len(data)
    return [Piece(split, "".join(kept), False) for split, kept in texts.items()], read


def _cut(data: bytes, read: int, within: Range) -> int:
    """Where in a line that began at `read` the range begins: behind the first blank of its first half, else at the next
    character.
    """
    at = ceil(within.start - read)
    blank = BLANK.search(data, at, at + int(min(within.end - within.start, read + len(data) - within.start) / 2))
    if blank:
        return blank.end()
    while at < len(data) and data[at] & 0xC0 == 0x80:  # the character goes on
        at += 1
    return at


def size_read(file: Path) -> int:
    """Bytes of a text file as its lines are read: of two bytes at a line's end, CR and LF, one counts."""
    pairs, before = 0, b""
    with reading(file), file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            pairs += chunk.count(b"\r\n") + (before == b"\r" and chunk.startswith(b"\n"))
            before = chunk[-1:]
        return stream.tell() - pairs


def gaps_of(file: Path, missing: tuple[Split, ...]) -> Gaps:
    """Raises DataError."""
    with reading(file):
        status = os.stat(file)
    return _gaps_of(file, missing, status.st_size, status.st_mtime_ns)


@cache  # so that a process looks into each file once
def _gaps_of(file: Path, missing: tuple[Split, ...], size: int, changed: int) -> Gaps:
    if size > SEARCHED_WHOLE and _has_short_lines(file, len(missing), size):
        return Gaps(frozenset(), long=False)
    whole = size_read(file)
    held_out = ranges_of(whole, missing)[1:]
    gaps = frozenset(
        place.split for place in held_out if not _line_begins(file, ceil(place.start), ceil(min(place.end, whole)))
    )
    return Gaps(gaps, long=whole * HELD_OUT >= LONG)


def _has_short_lines(file: Path, ranges: int, size: int) -> bool:
    """Whether a line ends in the middle of each held-out range: of a large file, which is not read to the end for
    it.
    """
    with reading(file), file.open("rb") as stream:
        for n in range(ranges):
            stream.seek(int(size * (1 - HELD_OUT * (n + 0.6))))
            if not re.search(rb"[\r\n]", stream.read(min(CHUNK, int(size * HELD_OUT * 0.2)))):
                return False
    return True


def _line_begins(file: Path, start: int, end: int) -> bool:
    """Whether a line begins at one of the bytes from `start` to before `end`, counted as they are read."""
    at = 0
    with reading(file), file.open(encoding="latin-1") as stream:  # a character a byte, line ends as they are read
        while at < end and (chunk := stream.read(CHUNK)):
            if chunk.find("\n", max(start - 1 - at, 0), max(end - 1 - at, 0)) >= 0:
                return True
            at += len(chunk)
    return False
