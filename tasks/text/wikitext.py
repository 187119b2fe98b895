"""WikiText-2 and WikiText-103, raw (Merity et al., arXiv 1609.07843): the hub's Parquet files or the classic ones."""

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
from tasks.storage.user_files import bytes_of, describe_files, reading
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.documents import Block, Corpus, Fragment, ReadState, stream_rows
from tasks.text.formats import parquet, wiki_lines
from tasks.text.tokenizer_options import HELP

HUB = "Salesforce/wikitext"
NAMES: Mapping[Split, str] = {"train": "train", "valid": "validation", "test": "test"}
HEADING = re.compile(r" = [^=].* = \n?")
KEY_FORMAT = 1


@dataclass(frozen=True)
class WikiFiles(Corpus):
    """Articles from rows of lines. A first-level heading after an empty row begins an article; an empty row is an
    empty line.
    """

    files: Mapping[Split, tuple[Path, ...]]

    @property
    def key(self) -> Mapping[str, Any]:
        return {
            "form": KEY_FORMAT,
            **{split: describe_files(paths[0].parent, paths) for split, paths in self.files.items()},
        }

    @property
    def size(self) -> int:
        return sum(
            bytes_of(paths) if wiki_lines.is_lines(paths[0]) else parquet.text_bytes(paths, "text")
            for paths in self.files.values()
        )

    def blocks(self, state: ReadState | None = None) -> Iterator[Block]:
        splits = get_args(Split)
        for split in splits[splits.index(state["split"]) if state else 0 :]:
            here: ReadState = (
                state if state and state["split"] == split else {"rows": None, "blank": True, "open": False}
            )
            if here["rows"] == "end":
                continue
            blank, is_open = here["blank"], here["open"]
            paths = self.files[split]
            lines = wiki_lines.is_lines(paths[0])
            table = wiki_lines.opener(paths[0]) if lines else partial(parquet.open_column, paths, "text")
            for rows, after in stream_rows(table, "text", here["rows"], paths[0] if lines else str(paths[0])):
                rows = wiki_lines.rows_of(rows) if lines else rows
                fragments, blank, is_open = _articles(rows, split, blank, is_open)
                yield Block(fragments, {"split": split, "rows": after, "blank": blank, "open": is_open})
            yield Block([Fragment(split, "", True)] if is_open else [], {"split": split, "rows": "end"})


def _articles(rows: list[str], split: Split, blank: bool, is_open: bool) -> tuple[list[Fragment], bool, bool]:
    """Rows as fragments of articles; `blank`: the row before was empty; `is_open`: an article has begun."""
    fragments: list[Fragment] = []
    lines: list[str] = []
    for row in rows:
        if blank and HEADING.fullmatch(row) and is_open:
            fragments.append(Fragment(split, "".join(lines), True))
            lines = []
        lines.append(row or "\n")
        blank = not row.strip()
        is_open = is_open or not blank  # empty rows before the first heading belong to the first article
    if lines:
        fragments.append(Fragment(split, "".join(lines), False))
    return fragments, blank, is_open


class WikiTextOptions(CorpusOptions):
    """Options of WikiText: BPE trained on its training part unless another tokenizer is chosen."""

    tokenizer: str = Field(default="bpe", description=HELP)


class WikiText(CorpusTask):
    """The published training, validation and test parts, from `--data-dir` (the hub's files, or a folder that contains
    their folder; or the classic files, `wiki.train.tokens` and so on), else from the hub.

    The text is the content of the rows; an empty row is an empty line. word_perplexity divides the same nats by the
    words between white space. Published values for word-level models score only words of their vocabulary and count
    line ends as words, so they are close to it but not the same.
    """

    downloads = "run"
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
        classic = wiki_lines.find_files(self._classic_places())
        files = classic or {split: tuple(map(self._find, self._paths(split))) for split in get_args(Split)}
        for split, paths in files.items():
            found = sum(map(wiki_lines.count_lines if classic else parquet.count_rows, paths))
            if found != self.rows[split]:
                what = f"{paths[0]} has {found:,} lines" if classic else f"{NAMES[split]} has {found:,} rows"
                raise DataError(
                    f"{self.name}: {what}, the published files have {self.rows[split]:,}; for your own text: "
                    "--task text"
                )
        return WikiFiles(files)

    def _classic_places(self) -> list[Path]:
        """Where the classic files may be: in the folder itself, or in the one that their archives hold."""
        if self.data_dir is None:
            return []
        raw = self.config.removesuffix("-v1")
        return [self.data_dir, self.data_dir / raw, self.data_dir / raw.removesuffix("-raw")]

    def _find(self, path: str) -> Path:
        if self.data_dir is None:
            return hub.fetch(HUB, path)
        for place in (self.data_dir / path, self.data_dir / Path(path).name):
            with reading(place):
                if place.is_file():
                    return place
        classic = ", ".join(name.format("train") for name in wiki_lines.NAMES)
        raise DataError(
            f"{self.data_dir} contains neither {path} nor {Path(path).name}; {self.name} reads the files of "
            f"{self.config} of the hub's {HUB}, or the classic ones ({classic}, and the same for valid and test)"
        )

    def prepare_note(self) -> str:
        if self._is_local():
            return super().prepare_note()
        return (
            f"{self.name}: {self.megabytes:g} MB will be downloaded from the hub's {HUB}; the space for token files is "
            "reported after that"
        )

    def _is_local(self) -> bool:
        every = [path for split in get_args(Split) for path in self._paths(split)]
        return self.data_dir is not None or all(hub.cached(HUB, path) for path in every)

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        download = (
            f"suite data prepare {self.name} downloads {self.megabytes:g} MB; or pass --data-dir DIR with its files"
        )
        notes = ("published splits", *(() if self._is_local() else (download,)), *self._unknown_words_note())
        return f"{self.config} of the hub's {HUB} (arXiv 1609.07843)", notes

    def _unknown_words_note(self) -> tuple[str, ...]:
        path = self._corpus.files["train"][0] if self.data_dir else None  # type: ignore[attr-defined]
        if path is None or not wiki_lines.is_lines(path) or not wiki_lines.has_unknown_words(path):
            return ()
        return (
            f"{path.name}: rare words are <unk>, so this is another text than the hub's raw one, with boards of its "
            "own",
        )


class WikiText2(WikiText):
    name, protocol, config, shards, megabytes = "wikitext2", "wikitext2/1", "wikitext-2-raw-v1", 1, 7.7
    summary = "next token of 600 Wikipedia articles, 2 million words"
    rows: ClassVar[Mapping[Split, int]] = {"train": 36_718, "valid": 3_760, "test": 4_358}


class WikiText103(WikiText):
    name, protocol, config, shards, megabytes = "wikitext103", "wikitext103/1", "wikitext-103-raw-v1", 2, 315.0
    summary = "next token of 28,475 Wikipedia articles, 103 million words"
    rows: ClassVar[Mapping[Split, int]] = {"train": 1_801_350, "valid": 3_760, "test": 4_358}
