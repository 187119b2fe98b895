"""The token files of a corpus on disk: written once, under a lock, and resumed where an earlier attempt stopped.

A folder holds `train.bin`, `valid.bin`, `test.bin` (little-endian uint16 or uint32) and `state.json`. Each file begins
with the end-of-text token, and one follows every document. Everything that the state counts is on disk. A killed
process may leave more; the next one cuts that off and resumes at the exact document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError, Split
from tasks.storage import cache, verified
from tasks.text.documents import Block, Corpus, Progress
from tasks.text.token_file import TokenFile, dtype_of
from tasks.text.tokenizers import BYTES_VOCAB, Tokenizer

FORMAT = 1
STATE, LOCK = "state.json", "lock"
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
COMMIT_BYTES = 64 * 2**20  # of text between two commits


@dataclass
class Counts:
    tokens: int = 0  # including the end-of-text token at the beginning
    bytes: int = 0
    documents: int = 0


@dataclass
class CacheState:
    """What is on disk, and where to resume reading the corpus (`source`). The field names are those of state.json."""

    dtype: str
    counts: dict[Split, Counts] = field(default_factory=lambda: {split: Counts() for split in SPLITS})
    source: Any = None
    complete: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)  # by the number of training tokens in use
    format: int = FORMAT

    @property
    def text_bytes(self) -> int:
        return sum(count.bytes for count in self.counts.values())


def estimate(vocab: int, text_bytes: int, limit: int = 0) -> int:
    """Approximate bytes of disk for the tokens of a text, or for `limit` training tokens of it."""
    # a BPE token is three to four bytes of English at the usual vocabulary sizes; two is a safe estimate
    tokens = limit or text_bytes // (1 if vocab == BYTES_VOCAB else 2)
    return np.dtype(dtype_of(vocab)).itemsize * tokens


class TokenCache:
    """The token files of one corpus and tokenizer, in their folder."""

    def __init__(self, folder: Path, corpus: Corpus, tokenizer: Tokenizer, limit: int = 0) -> None:
        """`limit`: number of training tokens in use, from the beginning of the corpus; 0: all."""
        self.folder, self.corpus, self.tokenizer, self.limit = folder, corpus, tokenizer, limit
        self.built = False  # whether this process wrote any of it

    def bytes_needed(self) -> int:
        """Approximate bytes of disk that are still to be written."""
        state = self._read()
        if state is None:
            return estimate(self.tokenizer.vocab, self.corpus.size, self.limit)
        if self._suffices(state):
            return 0
        left = self.limit - state.counts["train"].tokens if self.limit else self.corpus.size - state.text_bytes
        return estimate(self.tokenizer.vocab, max(left, 1), left if self.limit else 0)

    def open(self, progress: Progress | None = None) -> CacheState:
        """Builds what is missing, opens the files and returns their state. Raises DataError."""
        state = self._read()
        if state is None or not self._suffices(state):
            with cache.lock(self.folder / LOCK):  # another process may have built it in the meantime
                state = self._read() or CacheState(self._dtype)
                if not self._suffices(state):
                    cache.require_space(self.folder, self.bytes_needed(), "the token cache")
                    self._build(state, progress)
                    self.built = True
                    self._open_files(state)
                    state.fingerprints[self.fingerprint_key] = self.digest()
                    self._write(state)
        self._open_files(state)
        self._verify(state)
        if self.fingerprint_key not in state.fingerprints:
            state.fingerprints[self.fingerprint_key] = self.digest()
            self._save_fingerprint(state.fingerprints[self.fingerprint_key])
        return state

    def _verify(self, state: CacheState) -> None:
        """Raises DataError if the tokens in use are not those whose fingerprint is recorded."""
        recorded = state.fingerprints.get(self.fingerprint_key)
        paths = [self._path(split) for split in SPLITS]
        part = f"{self.tokenizer.fingerprint} {[self.length(split) for split in SPLITS]}"
        if recorded and verified.digest_once(paths, self.digest, recorded, part) != recorded:
            raise DataError(
                f"the token cache {self.folder} is damaged: its tokens are not those that were written; delete that "
                "folder and try again"
            )

    def _save_fingerprint(self, fingerprint: str) -> None:
        """Saves the fingerprint, so that the next process need not read all tokens; does nothing if it cannot write."""
        with suppress(cache.UnwritableError), cache.lock(self.folder / LOCK):
            state = self._read()  # another process may have extended the files in the meantime
            if state is not None:
                state.fingerprints[self.fingerprint_key] = fingerprint
                self._write(state)

    def digest(self) -> str:
        """sha256 over the tokenizer and the tokens in use, read from disk."""
        digest = sha256(self.tokenizer.fingerprint.encode())
        for split in SPLITS:
            digest.update(f"{split} {self.length(split)} ".encode())
            self.files[split].digest(self.length(split), digest.update)
        return digest.hexdigest()

    def length(self, split: Split) -> int:
        """Number of tokens in use, including the end-of-text token at the beginning."""
        length = self.files[split].length
        return min(length, self.limit + 1) if split == "train" and self.limit else length

    @property
    def fingerprint_key(self) -> str:
        return str(self.limit or "all")

    @property
    def _dtype(self) -> str:
        return dtype_of(self.tokenizer.vocab)

    def _suffices(self, state: CacheState) -> bool:
        prefix_suffices = self.limit and self.corpus.held_out_first and state.counts["train"].tokens > self.limit
        return state.complete or bool(prefix_suffices)

    def _path(self, split: Split) -> Path:
        return self.folder / f"{split}.bin"

    def _read(self) -> CacheState | None:
        try:
            content = json.loads((self.folder / STATE).read_text("utf-8"))
            counts = {split: Counts(**content["counts"][split]) for split in SPLITS}
            state = CacheState(**{**content, "counts": counts})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.folder / STATE} is damaged ({error}); delete that folder and try again") from None
        if state.format != FORMAT or state.dtype != self._dtype:
            raise DataError(f"{self.folder} was written by another version; delete it and try again")
        return state

    def _write(self, state: CacheState) -> None:
        cache.write_text(self.folder / STATE, json.dumps(asdict(state)))

    def _open_files(self, state: CacheState) -> None:
        self._require_complete(state)
        self.files = {split: TokenFile(self._path(split), state.dtype, state.counts[split].tokens) for split in SPLITS}

    def _require_complete(self, state: CacheState) -> None:
        """Raises DataError if a file is shorter than the state says: a longer one is from a killed process, a shorter
        one is damaged.
        """
        for split in SPLITS:
            path, tokens = self._path(split), state.counts[split].tokens
            size = path.stat().st_size if path.is_file() else 0
            if size < tokens * np.dtype(state.dtype).itemsize:
                raise DataError(
                    f"{path} is damaged: shorter than its {tokens:,} tokens; delete {self.folder} and try again"
                )

    def _build(self, state: CacheState, progress: Progress | None) -> None:
        self._require_complete(state)
        try:
            with ExitStack() as stack:
                handles = {split: stack.enter_context(open(self._path(split), "ab")) for split in SPLITS}
                for split, handle in handles.items():
                    handle.truncate(state.counts[split].tokens * np.dtype(state.dtype).itemsize)
                    if not state.counts[split].tokens:
                        self._append(handle, state.counts[split], [np.array([self.tokenizer.end])])
                self._copy(state, handles, progress)
        except OSError as error:
            raise cache.unwritable(self.folder, error) from error

    def _copy(self, state: CacheState, handles: Mapping[Split, BinaryIO], progress: Progress | None) -> None:
        committed = state.text_bytes
        for block in self.corpus.blocks(state.source):
            self._add(block, state, handles)
            state.source = block.state
            if progress is not None:
                progress(*self._progress(state))
            if self._suffices(state):
                break
            if state.text_bytes - committed > COMMIT_BYTES:
                committed = state.text_bytes
                self._commit(state, handles)
        else:
            state.complete = True
        self._commit(state, handles)

    def _progress(self, state: CacheState) -> tuple[int, int]:
        if self.limit:
            return min(state.counts["train"].tokens, self.limit), self.limit
        return min(state.text_bytes, self._corpus_size), self._corpus_size

    @cached_property
    def _corpus_size(self) -> int:
        return self.corpus.size

    @cached_property
    def _token_sizes(self) -> NDArray[np.int64]:
        return np.array([len(token) for token in self.tokenizer.token_bytes], dtype=np.int64)

    def _add(self, block: Block, state: CacheState, handles: Mapping[Split, BinaryIO]) -> None:
        encoded = self.tokenizer.encode([fragment.text for fragment in block.fragments])
        for fragment, ids in zip(block.fragments, encoded, strict=True):
            if int(self._token_sizes[ids].sum()) != len(fragment.text.encode("utf-8", "replace")):
                raise DataError(
                    "the tokenizer loses text, so bits per byte would be wrong; use bytes, bpe or another "
                    "tokenizer.json"
                )
        for split in SPLITS:
            tokens: list[NDArray[Any]] = []
            count = state.counts[split]
            for fragment, ids in zip(block.fragments, encoded, strict=True):
                if fragment.split == split:
                    tokens += [ids, np.array([self.tokenizer.end])] if fragment.ends else [ids]
                    count.bytes += len(fragment.text.encode("utf-8", "replace"))
                    count.documents += fragment.ends
            self._append(handles[split], count, tokens)

    def _append(self, handle: BinaryIO, count: Counts, tokens: Sequence[NDArray[Any]]) -> None:
        if tokens:
            joined = np.concatenate(tokens).astype(self._dtype)
            handle.write(joined.tobytes())
            count.tokens += len(joined)

    def _commit(self, state: CacheState, handles: Mapping[Split, BinaryIO]) -> None:
        for handle in handles.values():
            handle.flush()
            os.fsync(handle.fileno())
        self._write(state)
