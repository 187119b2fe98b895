"""Token files on disk: written once, under a lock, from where an earlier attempt stopped; read through a memory map.

A folder holds `train.bin`, `valid.bin`, `test.bin` (little-endian uint16 or uint32) and `state.json`. Each file begins
with the end-of-text token, and every document is followed by one. What the state counts is on disk; a killed process
leaves more behind than that, which is cut off when the next one goes on, at the exact document.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError, Split
from tasks.storage import cache
from tasks.text.documents import Block, Corpus, Progress
from tasks.text.tokenizers import BYTES_VOCAB, Tokenizer

FORMAT = 1
STATE, LOCK = "state.json", "lock"
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
COMMIT_BYTES = 64 * 2**20  # of text between two commits
DROP_BYTES = 8 * 2**20  # of the map that may be resident before it is dropped
NEIGHBOURS = 2 * 2**20  # bytes that the system may map around one that is touched
CHUNK = 2 * 2**20  # tokens read at once


@dataclass
class Count:
    tokens: int = 0  # the first end-of-text among them
    bytes: int = 0
    documents: int = 0


@dataclass
class State:
    """What is on disk, and where the corpus goes on."""

    dtype: str
    counts: dict[Split, Count] = field(default_factory=lambda: {split: Count() for split in SPLITS})
    source: Any = None
    complete: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)  # by the number of training tokens in use
    format: int = FORMAT

    @property
    def text(self) -> int:
        return sum(count.bytes for count in self.counts.values())


def dtype_of(vocab: int) -> str:
    return "<u2" if vocab <= 2**16 else "<u4"


def estimate(vocab: int, text_bytes: int, limit: int = 0) -> int:
    """Bytes of disk that the tokens of a text take, or `limit` training tokens of it."""
    # a token of BPE stands for three to four bytes of English at the vocabularies in use; two is on the safe side
    tokens = limit or text_bytes // (1 if vocab == BYTES_VOCAB else 2)
    return np.dtype(dtype_of(vocab)).itemsize * tokens


class TokenFile:
    """Tokens `[N]` in a memory map. What has been read is given back to the system, so that it does not fill the
    process's memory.
    """

    def __init__(self, path: Path, dtype: str, length: int) -> None:
        self.length = length
        self._map = np.memmap(path, dtype=dtype, mode="r", shape=(length,))
        self._touched = 0

    def windows(self, starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """`[len(starts), width]`: the tokens from each start on; a start may be so late that the end is padded with
        −1.
        """
        made = np.full((len(starts), width), -1, dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            piece = self._map[start : start + width]
            made[row, : len(piece)] = piece
            self._drop(width * self._map.itemsize + NEIGHBOURS)
        return made

    def digest(self, tokens: int, update: Callable[[bytes], None]) -> None:
        """Feeds the first `tokens` tokens to a hash."""
        for at in range(0, tokens, CHUNK):
            update(self._map[at : min(at + CHUNK, tokens)].tobytes())
            self._drop(CHUNK * self._map.itemsize)

    def _drop(self, touched: int) -> None:
        self._touched += touched
        if self._touched > DROP_BYTES:
            self._touched = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class TokenCache:
    """The token files of one corpus and tokenizer, in their folder."""

    def __init__(self, folder: Path, corpus: Corpus, tokenizer: Tokenizer, limit: int = 0) -> None:
        """`limit`: training tokens in use, the corpus's first; 0: all."""
        self.folder, self.corpus, self.tokenizer, self.limit = folder, corpus, tokenizer, limit
        self.built = False  # whether this process wrote any of it

    def needed(self) -> int:
        """Bytes of disk that are still to be written, about."""
        state = self._read()
        if state is None:
            return estimate(self.tokenizer.vocab, self.corpus.size, self.limit)
        if self._enough(state):
            return 0
        left = self.limit - state.counts["train"].tokens if self.limit else self.corpus.size - state.text
        return estimate(self.tokenizer.vocab, max(left, 1), left if self.limit else 0)

    def open(self, progress: Progress | None = None) -> State:
        """Builds what is missing, opens the files, gives their state. Raises DataError."""
        state = self._read()
        if state is None or not self._enough(state):
            with cache.lock(self.folder / LOCK):  # another process may have built it meanwhile
                state = self._read() or State(self._dtype)
                if not self._enough(state):
                    cache.require_space(self.folder, self.needed(), "the token cache")
                    self._build(state, progress)
                    self.built = True
                    self._open_files(state)
                    state.fingerprints[self.prefix] = self.digest()
                    self._write(state)
        self._open_files(state)
        if self.prefix not in state.fingerprints:
            state.fingerprints[self.prefix] = self.digest()
            self._keep_fingerprint(state.fingerprints[self.prefix])
        return state

    def _keep_fingerprint(self, fingerprint: str) -> None:
        """Writes it down, so that the next one need not read all tokens for it; where only reading is allowed, each one
        does.
        """
        with suppress(cache.UnwritableError), cache.lock(self.folder / LOCK):
            state = self._read()  # by now another process may have made the files longer
            if state is not None:
                state.fingerprints[self.prefix] = fingerprint
                self._write(state)

    def digest(self) -> str:
        """sha256 over the tokenizer and the tokens in use, read from the disk."""
        made = sha256(self.tokenizer.fingerprint.encode())
        for split in SPLITS:
            made.update(f"{split} {self.length(split)} ".encode())
            self.files[split].digest(self.length(split), made.update)
        return made.hexdigest()

    def length(self, split: Split) -> int:
        """Tokens in use, the first end-of-text among them."""
        length = self.files[split].length
        return min(length, self.limit + 1) if split == "train" and self.limit else length

    @property
    def prefix(self) -> str:
        return str(self.limit or "all")

    @property
    def _dtype(self) -> str:
        return dtype_of(self.tokenizer.vocab)

    def _enough(self, state: State) -> bool:
        return state.complete or bool(
            self.limit and self.corpus.held_out_first and state.counts["train"].tokens > self.limit
        )

    def _path(self, split: Split) -> Path:
        return self.folder / f"{split}.bin"

    def _read(self) -> State | None:
        try:
            content = json.loads((self.folder / STATE).read_text("utf-8"))
            counts = {split: Count(**content["counts"][split]) for split in SPLITS}
            state = State(**{**content, "counts": counts})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self.folder / STATE} is damaged ({error}); delete the folder and try again") from None
        if state.format != FORMAT or state.dtype != self._dtype:
            raise DataError(f"{self.folder} was written by another version; delete it and try again")
        return state

    def _write(self, state: State) -> None:
        cache.write_text(self.folder / STATE, json.dumps(asdict(state)))

    def _open_files(self, state: State) -> None:
        self._require_whole(state)
        self.files = {split: TokenFile(self._path(split), state.dtype, state.counts[split].tokens) for split in SPLITS}

    def _require_whole(self, state: State) -> None:
        """Raises DataError where a file has less than the state counts: more is what a killed process left, less is
        damage.
        """
        for split in SPLITS:
            path, tokens = self._path(split), state.counts[split].tokens
            there = path.stat().st_size if path.is_file() else 0
            if there < tokens * np.dtype(state.dtype).itemsize:
                raise DataError(
                    f"{path} is shorter than the {tokens:,} tokens it should have; delete {self.folder} and try again"
                )

    def _build(self, state: State, progress: Progress | None) -> None:
        self._require_whole(state)
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

    def _copy(self, state: State, handles: Mapping[Split, BinaryIO], progress: Progress | None) -> None:
        committed = state.text
        for block in self.corpus.blocks(state.source):
            self._add(block, state, handles)
            state.source = block.state
            if progress is not None:
                progress(*self._progress(state))
            if self._enough(state):
                break
            if state.text - committed > COMMIT_BYTES:
                committed = state.text
                self._commit(state, handles)
        else:
            state.complete = True
        self._commit(state, handles)

    def _progress(self, state: State) -> tuple[int, int]:
        if self.limit:
            return min(state.counts["train"].tokens, self.limit), self.limit
        return min(state.text, self._size), self._size

    @cached_property
    def _size(self) -> int:
        return self.corpus.size

    @cached_property
    def _bytes_a_token(self) -> NDArray[np.int64]:
        return np.array([len(piece) for piece in self.tokenizer.token_bytes], dtype=np.int64)

    def _add(self, block: Block, state: State, handles: Mapping[Split, BinaryIO]) -> None:
        encoded = self.tokenizer.encode([piece.text for piece in block.pieces])
        for piece, ids in zip(block.pieces, encoded, strict=True):
            if int(self._bytes_a_token[ids].sum()) != len(piece.text.encode("utf-8", "replace")):
                raise DataError(
                    "the tokenizer loses text, and bits a byte would be wrong; take bytes, bpe or another "
                    "tokenizer.json"
                )
        for split in SPLITS:
            tokens: list[NDArray[Any]] = []
            count = state.counts[split]
            for piece, ids in zip(block.pieces, encoded, strict=True):
                if piece.split == split:
                    tokens += [ids, np.array([self.tokenizer.end])] if piece.ends else [ids]
                    count.bytes += len(piece.text.encode("utf-8", "replace"))
                    count.documents += piece.ends
            self._append(handles[split], count, tokens)

    def _append(self, handle: BinaryIO, count: Count, tokens: Sequence[NDArray[Any]]) -> None:
        if tokens:
            joined = np.concatenate(tokens).astype(self._dtype)
            handle.write(joined.tobytes())
            count.tokens += len(joined)

    def _commit(self, state: State, handles: Mapping[Split, BinaryIO]) -> None:
        for handle in handles.values():
            handle.flush()
            os.fsync(handle.fileno())
        self._write(state)
