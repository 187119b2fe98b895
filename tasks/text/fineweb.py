"""FineWeb-Edu, `sample-10BT` (Penedo et al., arXiv 2406.17557), streamed from the hub or read from its files."""

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
from tasks.text.corpus import CorpusOptions, CorpusTask
from tasks.text.documents import Block, Corpus, Fragment, ReadState, hash_fraction, stream_rows
from tasks.text.formats import parquet
from tasks.text.tokenizer_options import HELP

HUB, CONFIG, FOLDER = "HuggingFaceFW/fineweb-edu", "sample-10BT", "sample/10BT"
VALID, TEST = 1000, 1000  # the first documents of the stream are for validation, the next ones for the test
TEXT_BYTES = 48_000_000_000  # of the whole sample, approximately


@dataclass(frozen=True)
class WebPages(Corpus):
    """Documents in the order of the files, the held-out ones first. Training skips copies of held-out documents.

    All files of the hub are read at one commit: the newest one when the first document is read. The read state contains
    it, and one object uses the same commit for training a tokenizer and for writing tokens.
    """

    files: tuple[Path, ...]  # empty: read from the hub
    held_out_first = True

    @property
    def key(self) -> Mapping[str, Any]:
        where = describe_files(self.files[0].parent, self.files) if self.files else [HUB, CONFIG]
        return {"held out": [VALID, TEST], "from": where}

    @property
    def size(self) -> int:
        return parquet.text_bytes(self.files, "text") if self.files else TEXT_BYTES

    def blocks(self, state: ReadState | None = None) -> Iterator[Block]:
        seen, held_out = (state["seen"], list(state["held out"])) if state else (0, [])
        commit = state.get("commit") if state else self._newest_commit
        hashes = set(held_out)
        from_hub = f"{CONFIG} of the hub's {HUB} (or pass --data-dir DIR with its files)"
        what = str(self.files[0].parent) if self.files else from_hub
        for texts, after in stream_rows(lambda: self._open(commit), "text", state["rows"] if state else None, what):
            fragments = []
            for text in texts:
                split = "valid" if seen < VALID else "test" if seen < VALID + TEST else "train"
                seen += 1
                if split != "train":
                    held_out.append(hash_fraction(text))
                    hashes.add(held_out[-1])
                elif hash_fraction(text) in hashes:
                    continue
                fragments.append(Fragment(split, text, True))  # type: ignore[arg-type]
            yield Block(fragments, {"rows": after, "seen": seen, "held out": list(held_out), "commit": commit})

    def origin(self, state: ReadState | None) -> Mapping[str, str]:
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
    tokens: int = Field(default=100_000_000, ge=1000, description="number of training tokens: a prefix of the stream")


class FinewebEdu(CorpusTask):
    """The first `tokens` training tokens of the stream are written to token files, which training then reads offline.

    Preparation resumes at the exact document where it stopped, however it ended, and extends the files of an earlier
    run with fewer tokens. The first 1,000 documents are for validation and the next 1,000 for the test, whatever
    `tokens` is. Machines without a common disk each write the same files.
    """

    name = "fineweb-edu"
    summary = "next token of educational web pages, the 10-billion-token sample, streamed"
    protocol = "fineweb-edu/1"
    downloads = "run"
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
                entries = folder.iterdir() if folder.is_dir() else ()
                files = tuple(sorted(path for path in entries if path.suffix == ".parquet"))
            if files:
                return WebPages(files)
        raise DataError(
            f"{self.data_dir} contains neither {FOLDER}/*.parquet nor *.parquet; {self.name} reads the files of "
            f"{CONFIG} of the hub's {HUB}"
        )

    def _is_local(self) -> bool:
        return self.data_dir is not None or not self._bytes_needed()

    @property
    def _source(self) -> tuple[str, tuple[str, ...]]:
        notes = (
            f"the first {VALID:,} documents are for validation, the next {TEST:,} for the test",
            "training skips copies of these documents",
        )
        streams = (
            f"suite data prepare {self.name} streams {self.options.tokens:,} training tokens from the hub; or pass "
            "--data-dir DIR"
        )
        return f"{CONFIG} of the hub's {HUB} (arXiv 2406.17557)", notes if self.data_dir else (*notes, streams)
