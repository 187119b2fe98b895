"""Text in another encoding than UTF-8: the detected one and what to do, in one wording whatever reads the file."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess

import pytest

from tasks.base import DataError
from tasks.series.csv_table import read_series_csv
from tasks.storage.encodings import decoding, require_text
from tasks.text.files import find_text
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import write_text
from tests.tasks.text.corpus_reading import documents

TEXT = "Überall kühlt die Température ab.\n" * 60
#: Bytes of a text, by the words that the error must have.
FILES = {
    "Windows-1252 or Latin-1": (TEXT.encode("latin-1"), "iconv -f WINDOWS-1252 -t UTF-8"),
    "probably Windows-1252": ("“Quoted” – and more\n".encode("cp1252") * 60, "iconv -f WINDOWS-1252 -t UTF-8"),
    "it is UTF-16, not UTF-8": (TEXT.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    "it is UTF-16BE, not UTF-8": (TEXT.encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
    "it is UTF-16LE, not UTF-8": (TEXT.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
    "it is UTF-32, not UTF-8": (TEXT.encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
    "it is a gzip file": (gzip.compress(TEXT.encode()), "decompress it"),
    "it holds binary data": (bytes(range(256)) * 9, "pass a file of text in UTF-8"),
    "up to line 61, which has other bytes": (TEXT.encode() + "à propos\n".encode("latin-1"), "correct that line"),
    "it ends inside a character": (TEXT.encode() + b"\xc3", "truncated"),
    "its encoding is unknown": ("Привет мир №\n".encode("cp866") * 60, "save it as UTF-8"),
}


def readings(folder, content):
    """The file as text, as one of a hundred texts, as lines of JSON, as a list of JSON, and as a CSV file."""
    named = {kind: folder / kind / f"one{ending}" for kind, ending in ENDINGS.items()}
    for path in named.values():
        path.parent.mkdir()
        path.write_bytes(content)
    for n in range(100):
        write_text(named["whole"].parent / f"{n}.txt", f"{n}\n" * 9)
    return {
        kind: (
            named[kind],
            read_series_csv if kind == "csv" else lambda path, kind=kind: documents(_corpus(path, kind)),
        )
        for kind in named
    }


def _corpus(path, kind):
    return find_text(path.parent if kind == "whole" else path, "text")


#: Faults that a reader of JSON or CSV reaches only where the rest is JSON or CSV.
LATE = {"up to line 61, which has other bytes", "it ends inside a character"}
ENDINGS = {"text": ".txt", "whole": ".txt", "lines": ".jsonl", "list": ".json", "named": "", "csv": ".csv"}


@pytest.mark.parametrize("expected", FILES)
def test_every_reader_reports_the_encoding_and_what_to_do_in_one_wording(tmp_path, expected):
    content, advice = FILES[expected]
    wordings = set()
    for kind, (path, read) in readings(tmp_path, content).items():
        if expected in LATE and kind in ("lines", "list", "csv"):
            continue
        message = error_of(read, path)
        assert message.startswith(f"{path} cannot be read: ")
        assert advice in message
        assert "codec" not in message
        wordings.add(message.replace(str(path), "FILE").replace(f"one{path.suffix} ", "").replace(path.suffix, ""))
    assert all(expected in wording for wording in wordings)
    assert len({wording.partition("> ")[0] for wording in wordings}) == 1


def test_a_semicolon_file_in_latin_1_is_reported_as_latin_1_first(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("Datum;Temp, außen;b\n01.01.2021 00:00;10,038;119,868\n".encode("latin-1"))
    assert "line 1 is then 'außen'" in error_of(read_series_csv, path)
    path.write_text(path.read_text("latin-1"), "utf-8")
    assert "--set separator=semicolon reads such files (and --set decimal=comma" in error_of(read_series_csv, path)


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv here")
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-32"])
def test_the_command_that_the_error_gives_converts_the_file(tmp_path, encoding):
    path = tmp_path / "mine.txt"
    path.write_bytes(TEXT.encode(encoding))
    command = error_of(lambda: documents(find_text(path, "text"))).partition("for example: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert "".join("".join(some) for some in documents(find_text(tmp_path / "mine.utf8.txt", "text")).values()) == TEXT


@pytest.mark.parametrize("text", ["", "\ufeffa\n", "한국어\n" * 50, "tab\there\x1b[1m\f\n" * 50, "one\0two\n" * 90])
def test_text_in_utf_8_is_accepted_whatever_it_holds(tmp_path, text):
    path = tmp_path / "mine.txt"
    path.write_text(text, "utf-8", newline="")
    if text.count("\0") < 90:
        require_text(path)
    with decoding(path):
        assert path.read_bytes().decode("utf-8") == text


def test_a_line_of_json_in_latin_1_far_into_the_file_is_found(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [json.dumps({"text": f"page {n}"}) for n in range(3000)]
    path.write_bytes(("\n".join(rows) + '\n{"text": "café au lait"}\n').encode("latin-1"))
    with pytest.raises(DataError, match="line 3001 is then 'café'"):
        documents(find_text(path, "text"))
