"""Text that is not UTF-8: which encoding it probably has, and what to do. One wording for all readers of text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import DataError
from tasks.storage.compressed import COMPRESSIONS, opened

SAMPLE = 64 * 2**10  # bytes at the beginning of a file that show UTF-16 and binary content
CHUNK = 2**20
#: By the bytes that a file begins with. UTF-32's mark begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7z": "xz",
}
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # of Windows-1252
WORD = re.compile(rb"[^\s,;|\"'()<>]*$"), re.compile(rb"^[^\s,;|\"'()<>]*")
MOST_CONTROL = 0.01  # fraction of control characters that text may have
LONGEST_WORD = 24
MANY = 3  # characters of several bytes, which do not come about by chance in other encodings


@dataclass(frozen=True)
class _Fault:
    """The first byte that is not UTF-8: its line, the bytes of its word, how many characters of several bytes came
    before it, and whether the file ends inside a character.
    """

    line: int
    word: bytes
    before: int
    cut: bool


@contextmanager
def decoding(file: Path) -> Iterator[None]:
    """Reports an error of decoding UTF-8 as a DataError that has the file's probable encoding and what to do."""
    try:
        yield
    except UnicodeDecodeError:
        raise not_utf8(file) from None


def require_text(file: Path) -> None:
    """Raises DataError if a file's beginning is that of UTF-16 or binary, which can be UTF-8 with characters of zero.

    Args:
        file: The file; it may be compressed.

    Raises:
        DataError: It is not text in UTF-8.
        OSError: It cannot be read.
    """
    with opened(file) as stream:
        start = stream.read(SAMPLE)
    if found := _of_start(start):
        raise _error(file, *found)


def not_utf8(file: Path) -> DataError:
    """The error about a file that cannot be decoded as UTF-8.

    Args:
        file: The file; it may be compressed.

    Returns:
        One line with the probable encoding, the first place that shows it, and a command that converts the file.

    Raises:
        OSError: It cannot be read.
    """
    with opened(file) as stream:
        start = stream.read(SAMPLE)
    if found := _of_start(start):
        return _error(file, *found)
    fault = _first_fault(file)
    if fault is None:
        return DataError(f"{file} cannot be read: it is not UTF-8; save it as UTF-8")
    if fault.cut and fault.before >= MANY:
        return DataError(f"{file} cannot be read: it ends inside a character; it may be truncated: copy it again")
    if fault.before >= MANY:
        what = f"it is UTF-8 up to line {fault.line}, which has other bytes ({_shown(fault.word)})"
        return DataError(f"{file} cannot be read: {what}; correct that line, or remove it")
    if UNDEFINED.search(fault.word) or CONTROL.search(fault.word):
        what = f"line {fault.line} is not UTF-8 ({_shown(fault.word)}), and its encoding is unknown"
        return DataError(f"{file} cannot be read: {what}; save it as UTF-8 in the program that wrote it")
    shown = fault.word.decode("cp1252")
    place = f"; line {fault.line} is then {shown!r}"
    return _error(file, "it is not UTF-8 but probably Windows-1252 or Latin-1", "WINDOWS-1252", place)


def _of_start(start: bytes) -> tuple[str, str] | None:
    """What is wrong with a file that begins with these bytes and, where it is text, iconv's name of its encoding."""
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return f"it is {name}, not UTF-8", name
    archive = next((name for mark, name in ARCHIVES.items() if start.startswith(mark)), None)
    if archive:
        return f"it is a {archive} file, not text; decompress it", ""
    zeros = [start[place::2].count(0) / max(len(start[place::2]), 1) for place in (0, 1)]
    if max(zeros) > 0.3 and min(zeros) < 0.05:
        name = "UTF-16LE" if zeros[1] > zeros[0] else "UTF-16BE"
        return f"it is {name}, not UTF-8", name
    if len(CONTROL.findall(start)) > MOST_CONTROL * len(start):
        return "it holds binary data, not text", ""
    return None


def _error(file: Path, what: str, encoding: str, place: str = "") -> DataError:
    if not encoding:
        return DataError(f"{file} cannot be read: {what}; pass a file of text in UTF-8")
    if file.suffix.lower() in COMPRESSIONS:
        return DataError(f"{file} cannot be read: {what}{place}; decompress it, and save it as UTF-8")
    new = f"{file.stem}.utf8{file.suffix}"
    how = f"save it as UTF-8, for example: iconv -f {encoding} -t UTF-8 {file.name} > {new}"
    return DataError(f"{file} cannot be read: {what}{place}; {how}")


def _first_fault(file: Path) -> _Fault | None:
    decoder, line, longer, tail = codecs.getincrementaldecoder("utf-8")(), 1, 0, b""
    with opened(file) as stream:
        while True:
            chunk = stream.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                whole, at = error.object, error.start
                good = whole[:at].decode("utf-8")
                longer += sum(letter > "\x7f" for letter in good)
                before, after = (tail + whole[:at])[-LONGEST_WORD:], whole[at : at + LONGEST_WORD]
                begin, end = WORD[0].search(before), WORD[1].search(after)
                assert begin is not None
                assert end is not None
                word, cut = begin.group() + (end.group() or after[:1]), error.reason == "unexpected end of data"
                return _Fault(line + whole[:at].count(b"\n"), word, longer, cut)
            if not chunk:
                return None
            line += chunk.count(b"\n")
            longer += 0 if text.isascii() else MANY
            tail = chunk[-LONGEST_WORD:]


def _shown(word: bytes) -> str:
    return f"0x{word.hex()}" if len(word) <= 8 else f"0x{word[:8].hex()}…"
