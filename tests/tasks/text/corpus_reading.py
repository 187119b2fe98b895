"""Reading a corpus in tests: its documents, a check that it can be resumed, and a corpus in memory with its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tasks.base import DataError, Split
from tasks.text.documents import Block, Corpus, Fragment, ReadState
from tasks.text.token_cache import TokenCache
from tests.tasks.text.corpus_files import pages


def documents(corpus: Corpus, state: ReadState | None = None) -> dict[str, list[str]]:
    """The documents of every split, joined from their fragments."""
    complete: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    parts: dict[str, str] = dict.fromkeys(complete, "")
    for block in corpus.blocks(state):
        for fragment in block.fragments:
            parts[fragment.split] += fragment.text
            if fragment.ends:
                complete[fragment.split].append(parts[fragment.split])
                parts[fragment.split] = ""
    assert not any(parts.values())
    return complete


def fragments(corpus: Corpus, state: ReadState | None = None) -> list[tuple[str, str, bool]]:
    return [(one.split, one.text, one.ends) for block in corpus.blocks(state) for one in block.fragments]


def check_resumes(corpus: Corpus) -> None:
    """After any block, reading from its state (through JSON) gives the rest of an uninterrupted reading."""
    blocks = list(corpus.blocks())
    expected = fragments(corpus)
    assert len(blocks) > 2
    for i in {0, 1, len(blocks) // 2, len(blocks) - 2, len(blocks) - 1}:
        read = sum(len(block.fragments) for block in blocks[: i + 1])
        assert fragments(corpus, json.loads(json.dumps(blocks[i].state))) == expected[read:]


Document = tuple[Split, str]  # with its text


class ListedCorpus(Corpus):
    """Documents in memory, one per block; reading fails at document number `broken`."""

    def __init__(self, listed: Sequence[Document], *, held_out_first: bool = False, broken: int | None = None) -> None:
        self.listed, self.held_out_first, self.broken = listed, held_out_first, broken
        self.read = 0  # number of documents read

    @property
    def key(self) -> Mapping[str, str]:
        return {}

    @property
    def size(self) -> int:
        return sum(len(text) for _, text in self.listed)

    def blocks(self, state: ReadState | None = None) -> Iterator[Block]:
        for i in range(state["next"] if state else 0, len(self.listed)):
            if i == self.broken:
                raise DataError("the network is gone")
            split, text = self.listed[i]
            self.read += 1
            fragments = [Fragment(split, text[:3], False), Fragment(split, text[3:], True)]
            yield Block(fragments, {"next": i + 1})


def listed_pages() -> list[Document]:
    """(split, text) of 40 pages; a quarter each for validation and the test."""
    splits: tuple[Split, ...] = ("valid", "test", "train", "train")
    return [(splits[i % 4], f"{i}: {page}") for i, page in enumerate(pages(40, 200))]


def held_out_first(listed: Sequence[Document]) -> list[Document]:
    """The documents with those of validation and test first, otherwise in their order."""
    return sorted(listed, key=lambda document: document[0] == "train")


def byte_tokens(listed: Sequence[Document], split: str) -> list[int]:
    """The tokens of a split as bytes, with an end of text (256) before the first document and after each."""
    return [256, *(token for s, text in listed if s == split for token in [*text.encode(), 256])]


def tokens_of(token_cache: TokenCache, split: Split) -> list[int]:
    """The tokens of a split that an open cache has in use."""
    return token_cache.files[split].windows(np.array([0]), token_cache.length(split))[0].tolist()
