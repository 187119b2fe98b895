"""WikiText-2 and WikiText-103, raw (Merity et al., arXiv 1609.07843), as the hub serves them: Parquet, one line a
row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import Field

from tasks.base import DataError, Split, TaskOptions
from tasks.storage import hub
from tasks.storage.user_files import describe_files, reading
from tasks.text import parquet
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.documents import Block, Corpus, Piece, State, stream_rows
from tasks.text.tokenizer_options import HELP

HUB = "Salesforce/wikitext"
NAMES: Mapping[Split, str] = {"train": "train", "valid": "validation", "test": "test"}
HEADING = re.compile(r" = [^=].* = \n?")
FORM = 1


@dataclass(frozen=True)
class WikiFiles(Corpus):
    """Articles out of rows of lines. A heading of the first level behind an empty row begins one; an empty row is an
    empty line.
    """

    files: Mapping[Split, tuple[Path, ...]]

    @property
    def key(self) -> Mapping[str, Any]:
        return {"form": FORM, **{split: describe_files(paths[0].parent, paths) for split, paths in self.files.items()}}

    @property
    def size(self) -> int:
        return sum(parquet.text_bytes(paths, "text") for paths in self.files.values())

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        splits = get_args(Split)
        for split in splits[splits.index(state["split"]) if state else 0 :]:
            here: State = state if state and state["split"] == split else {"rows": None, "blank": True, "open": False}
            if here["rows"] == "end":
                continue
            blank, is_open = here["blank"], here["open"]
            paths = self.files[split]
            for rows, behind in stream_rows(
                partial(parquet.open_column, paths, "text"), "text", here["rows"], str(paths[0])
            ):
                pieces, blank, is_open = _articles(rows, split, blank, is_open)
                yield Block(pieces, {"split": split, "rows": behind, "blank": blank, "open": is_open})
            yield Block([Piece(split, "", True)] if is_open else [], {"split": split, "rows": "end"})


def _articles(rows: list[str], split: Split, blank: bool, is_open: bool) -> tuple[list[Piece], bool, bool]:
    """Rows as pieces of articles; `blank`: the row before was empty, `is_open`: a line of an article has come."""
    pieces: list[Piece] = []
    lines: list[str] = []
    for row in rows:
        if blank and HEADING.fullmatch(row) and is_open:
            pieces.append(Piece(split, "".join(lines), True))
            lines = []
        lines.append(row or "\n")
        blank = not row.strip()
        is_open = is_open or not blank  # empty rows before the first heading belong to the article that it begins
    if lines:
        pieces.append(Piece(split, "".join(lines), False))
    return pieces, blank, is_open


class WikiTextOptions(CorpusOptions):
    """Options of WikiText: BPE of its own training part unless told otherwise."""

    tokenizer: str = Field(default="bpe", description=HELP)


class WikiText(CorpusTask):
    """The published training, validation and test part. `--data-dir` with the hub's files, or with their folder in it;
    else the hub.

    The text is what the rows hold, an empty row standing for an empty line. word_perplexity divides the same nats by
    the words between white space; the field's figures for models of words score only what is in their vocabulary and
    count line ends as words, so they are near to it but not the same.
    """

    licence = "CC BY-SA 3.0"
    counts_words = True
    Options: ClassVar[type[TaskOptions]] = WikiTextOptions
    config: ClassVar[str]
    shards: ClassVar[int]  # of the training part
    rows: ClassVar[Mapping[Split, int]]
    megabytes: ClassVar[float]  # of the files

    def _paths(self, split: Split) -> list[str]:
        """Paths in the hub's repository."""
        shards = self.shards if split == "train" else 1
        return [f"{self.config}/{NAMES[split]}-{n:05}-of-{shards:05}.parquet" for n in range(shards)]

    def _open_corpus(self) -> WikiFiles:
        made = WikiFiles({split: tuple(map(self._find, self._paths(split))) for split in get_args(Split)})
        for split, paths in made.files.items():
            found = sum(map(parquet.count_rows, paths))
            if found != self.rows[split]:
                raise DataError(
                    f"{self.name}: {NAMES[split]} has {found:,} rows, the published one {self.rows[split]:,}; "
                    "your own text: --task text"
                )
        return made

    def _find(self, path: str) -> Path:
        if self.data_dir is None:
            return hub.fetch(HUB, path)
        for place in (self.data_dir / path, self.data_dir / Path(path).name):
            with reading(place):
                if place.is_file():
                    return place
        raise DataError(
            f"{self.data_dir} holds no {path} and no {Path(path).name}; {self.name} is {self.config} of the hub's {HUB}"
        )

    def prepare_note(self) -> str:
        if self._at_hand():
            return super().prepare_note()
        return (
            f"{self.name}: {self.megabytes:g} MB come from the hub's {HUB}; what their tokens need is told "
            "once they are here"
        )

    def _at_hand(self) -> bool:
        every = [path for split in get_args(Split) for path in self._paths(split)]
        return self.data_dir is not None or all(hub.cached(HUB, path) for path in every)

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        fetched = (
            f"suite data prepare {self.name} downloads {self.megabytes:g} MB; or pass --data-dir DIR with its files"
        )
        return f"{self.config} of the hub's {HUB} (arXiv 1609.07843)", (
            "published splits",
            *(() if self._at_hand() else (fetched,)),
        )


class WikiText2(WikiText):
    name, protocol, config, shards, megabytes = "wikitext2", "wikitext2/1", "wikitext-2-raw-v1", 1, 7.7
    summary = "next token of 600 Wikipedia articles, 2 million words"
    rows: ClassVar[Mapping[Split, int]] = {"train": 36_718, "valid": 3_760, "test": 4_358}


class WikiText103(WikiText):
    name, protocol, config, shards, megabytes = "wikitext103", "wikitext103/1", "wikitext-103-raw-v1", 2, 315.0
    summary = "next token of 28,475 Wikipedia articles, 103 million words"
    rows: ClassVar[Mapping[Split, int]] = {"train": 1_801_350, "valid": 3_760, "test": 4_358}
