"""A file of token ids, read through a memory map that does not fill the process's memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DROP_BYTES = 8 * 2**20  # of the map that may be resident before it is dropped
READAHEAD_BYTES = 2 * 2**20  # that the system may map around one that is read
HASH_TOKENS = 2 * 2**20  # hashed at a time


def dtype_of(vocab: int) -> str:
    """The numpy type of the ids of a vocabulary: little-endian, 16 or 32 bits."""
    return "<u2" if vocab <= 2**16 else "<u4"


class TokenFile:
    """The first `length` tokens of a file. Pages that have been read are given back to the system."""

    def __init__(self, path: Path, dtype: str, length: int) -> None:
        self.length = length
        self._map = np.memmap(path, dtype=dtype, mode="r", shape=(length,))
        self._read_bytes = 0

    def windows(self, starts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """The `width` tokens from each start on, `[len(starts), width]`; −1 after the end of the file."""
        windows = np.full((len(starts), width), -1, dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            tokens = self._map[start : start + width]
            windows[row, : len(tokens)] = tokens
            self._drop(width * self._map.itemsize + READAHEAD_BYTES)
        return windows

    def places_of(self, token: int) -> NDArray[np.int64]:
        """The positions that hold a token, in order."""
        found = [np.empty(0, dtype=np.int64)]
        for at in range(0, self.length, HASH_TOKENS):
            found.append(at + np.flatnonzero(self._map[at : at + HASH_TOKENS] == token))
            self._drop(HASH_TOKENS * self._map.itemsize)
        return np.concatenate(found)

    def digest(self, tokens: int, update: Callable[[bytes], None]) -> None:
        """Feeds the first `tokens` tokens to a hash."""
        for at in range(0, tokens, HASH_TOKENS):
            update(self._map[at : min(at + HASH_TOKENS, tokens)].tobytes())
            self._drop(HASH_TOKENS * self._map.itemsize)

    def _drop(self, read: int) -> None:
        self._read_bytes += read
        if self._read_bytes > DROP_BYTES:
            self._read_bytes = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
