"""FineWeb-Edu, `sample-10BT` (Penedo et al., arXiv 2406.17557): streamed from the hub, or from its files in a
folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tasks.base import DataError, TaskOptions
from tasks.storage import hub
from tasks.storage.user_files import describe_files, reading
from tasks.text import parquet
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.documents import Block, Corpus, Piece, State, share_of, stream_rows
from tasks.text.tokenizer_options import HELP

HUB, CONFIG, FOLDER = "HuggingFaceFW/fineweb-edu", "sample-10BT", "sample/10BT"
VALID, TEST = 1000, 1000  # the first documents of the stream validate, the next ones test
TEXT_BYTES = 48_000_000_000  # of the whole sample, about


@dataclass(frozen=True)
class WebPages(Corpus):
    """Documents in the order of the files, the held-out ones first. Training skips documents equal to one held out.

    The hub's files are all read as they were at one commit, the newest when the first document was read: the state
    names it. What one object reads from the beginning, for a tokenizer and for the tokens, is of one commit.
    """

    files: tuple[Path, ...]  # none: the hub
    held_out_first = True

    @property
    def key(self) -> Mapping[str, Any]:
        where = describe_files(self.files[0].parent, self.files) if self.files else [HUB, CONFIG]
        return {"held out": [VALID, TEST], "from": where}

    @property
    def size(self) -> int:
        return parquet.text_bytes(self.files, "text") if self.files else TEXT_BYTES

    def blocks(self, state: State | None = None) -> Iterator[Block]:
        seen, held_out = (state["seen"], list(state["held out"])) if state else (0, [])
        commit = state.get("commit") if state else self._newest_commit
        known = set(held_out)
        what = (
            str(self.files[0].parent)
            if self.files
            else f"the hub's {HUB} ({CONFIG}; or pass --data-dir DIR with its files)"
        )
        for texts, behind in stream_rows(lambda: self._open(commit), "text", state["rows"] if state else None, what):
            pieces = []
            for text in texts:
                split = "valid" if seen < VALID else "test" if seen < VALID + TEST else "train"
                seen += 1
                if split != "train":
                    held_out.append(share_of(text))
                    known.add(held_out[-1])
                elif share_of(text) in known:
                    continue
                pieces.append(Piece(split, text, True))  # type: ignore[arg-type]
            yield Block(pieces, {"rows": behind, "seen": seen, "held out": list(held_out), "commit": commit})

    def origin(self, state: State | None) -> Mapping[str, str]:
        commit = state.get("commit") if state else None
        return {"hub_commit": commit} if commit else {}

    @cached_property
    def _newest_commit(self) -> str | None:
        return None if self.files else hub.newest_commit(HUB, CONFIG)

    def _open(self, commit: str | None) -> Any:
        if self.files:
            return parquet.open_column(self.files, "text")
        from datasets import load_dataset

        return load_dataset(HUB, CONFIG, split="train", streaming=True, revision=commit)


class FinewebOptions(CorpusOptions):
    """Options of `fineweb-edu`."""

    tokenizer: str = Field(default="bpe", description=HELP)
    tokens: int = Field(default=100_000_000, ge=1000, description="training tokens: the stream's first, so many")


class FinewebEdu(CorpusTask):
    """The stream is tokenised up to `tokens` training tokens into the memory map, which training reads: it needs the
    network once.

    Preparing goes on at the exact document where it stopped, however it ended, and where an earlier one had a smaller
    `tokens`: a run with fewer reads the beginning. The first 1,000 documents validate and the next 1,000 test, whatever
    `tokens` is. Several machines without a common disk each prepare the same files; ranks then share batches by rows
    (`share`).
    """

    name = "fineweb-edu"
    summary = "next token of educational web pages, the 10-billion-token sample, streamed"
    protocol = "fineweb-edu/1"
    licence = "ODC-By 1.0, and Common Crawl's terms of use"
    Options: ClassVar[type[TaskOptions]] = FinewebOptions
    options: FinewebOptions

    @property
    def _limit(self) -> int:
        return self.options.tokens

    def _open_corpus(self) -> WebPages:
        if self.data_dir is None:
            return WebPages(())
        for folder in (self.data_dir / FOLDER, self.data_dir):
            with reading(folder):
                files = (
                    tuple(sorted(path for path in folder.iterdir() if path.suffix == ".parquet"))
                    if folder.is_dir()
                    else ()
                )
            if files:
                return WebPages(files)
        raise DataError(
            f"{self.data_dir} holds no {FOLDER}/*.parquet and no *.parquet; {self.name} is {CONFIG} of the hub's {HUB}"
        )

    def _at_hand(self) -> bool:
        return self.data_dir is not None or not self._needed()

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        notes = (
            f"the first {VALID:,} documents validate, the next {TEST:,} test",
            "training skips documents equal to one of them",
        )
        streams = (
            f"suite data prepare {self.name} streams {self.options.tokens:,} training tokens from the "
            f"hub; or pass --data-dir DIR"
        )
        return f"{CONFIG} of the hub's {HUB} (arXiv 2406.17557)", notes if self.data_dir else (*notes, streams)
