"""Real text in the layouts of the hub and of users' folders, cut from the embedded addresses.

`python -m tests.tasks.text.corpus_files FOLDER` writes them to look at.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import embedded
from tasks.base import Split
from tasks.text.wikitext import NAMES, WikiText, WikiText2, WikiText103


@cache
def addresses() -> tuple[str, ...]:
    """The embedded addresses."""
    return tuple(text for _, text in json.loads(embedded.read("sotu")))


@cache
def pages(count: int, size: int = 2_000) -> tuple[str, ...]:
    """`count` different documents of about `size` characters, cut from the addresses."""
    whole = "\n".join(addresses())
    assert count * size <= len(whole)
    return tuple(whole[i * size : (i + 1) * size] for i in range(count))


def wiki_rows(count: int, seed: int = 0, width: int = 12) -> list[str]:
    """Rows like WikiText's: one line each with its line end, empty rows around headings, about 40 rows per article."""
    words = " ".join(addresses()[seed : seed + 60]).split()
    rows: list[str] = []
    while len(rows) < count:
        number = len(rows)
        if number % 40 == 0:
            rows += ["", f" = Article {seed} {number} = \n", ""]
        elif number % 20 == 0:
            rows += ["", f" = = Section {number} = = \n", ""]
        else:
            at = (number * width) % (len(words) - width)
            rows.append(f" {' '.join(words[at : at + width])} \n")
    return rows[:count]


def write_rows(path: Path, columns: Mapping[str, Sequence[object]], group: int = 1000) -> Path:
    """Writes a Parquet file of small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=group)
    return path


def write_wikitext(root: Path, task: type[WikiText] = WikiText2, rows: Mapping[Split, int] | None = None) -> Path:
    """Writes the hub's folder of a WikiText, with the published number of rows by default."""
    for seed, (split, count) in enumerate((rows or task.rows).items()):
        shards = task.shards if split == "train" else 1
        lines = wiki_rows(count, 60 * seed)
        for n in range(shards):
            part = lines[n * count // shards : (n + 1) * count // shards]
            write_rows(root / task.config / f"{NAMES[split]}-{n:05}-of-{shards:05}.parquet", {"text": part})
    return root


def write_fineweb(root: Path, documents: Sequence[str], files: int = 2) -> Path:
    """Writes the hub's folder of the sample, with some of its columns."""
    for n in range(files):
        part = documents[n * len(documents) // files : (n + 1) * len(documents) // files]
        ids = [f"<urn:uuid:{n}-{i}>" for i in range(len(part))]
        write_rows(
            root / "sample" / "10BT" / f"{n:03}_00000.parquet",
            {"text": part, "id": ids, "score": [3.0] * len(part)},
            500,
        )
    return root


def write_lines(path: Path, documents: Sequence[str], field: str = "text") -> Path:
    """Writes a .jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({field: text, "number": i}, ensure_ascii=i % 2 == 0) for i, text in enumerate(documents))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_wikitext(folder / "wikitext")
    write_wikitext(folder / "wikitext", WikiText103, {"train": 4000, "valid": 400, "test": 400})
    write_fineweb(folder / "fineweb-edu", pages(3000))
    write_lines(folder / "text" / "train.jsonl", pages(300))
    write_text(folder / "text" / "valid.txt", addresses()[9])
