"""Memory layout of the scores of a block of rows, so that a table indexed by lag reads them without any shuffling.

A block holds R query rows from t0 on and the keys they see. Its scores are in one buffer of row pitch P. Viewed with
pitch P, column c of every row is the same lag (or signed offset) `t − i = t0 + R − 1 − c`; viewed with pitch P − 1 from
R − 1 on, column i of every row is key i. So a product over keys writes through the second view what elementwise and
low-rank work over lags reads through the first: the skew costs nothing. Lags decrease along a row, so tables are used
in reverse order (`reversed_table`).

Entries of a block that are not scores of visible keys (one or two small triangles of columns) are hidden: set to zero.
Without the lag layout (`by_lag` False) column c is key c in both views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NORM_EPS = 1e-12  # added to the sum of squares of a row of scores, as in the authors' code


@dataclass(frozen=True)
class Layout:
    """causal: rows see the past. by_lag: tables are indexed by lag, otherwise by position. length: L, the longest
    sequence.
    """

    causal: bool
    by_lag: bool
    length: int

    @property
    def table(self) -> int:
        """Entries of a table: L lags, 2L − 1 signed offsets from −(L−1) on, or L positions."""
        return 2 * self.length - 1 if self.by_lag and not self.causal else self.length

    def blocks(self, tokens: int, rows: int, device: torch.device, origin: int = 0) -> Iterator[Block]:
        """The rows from position `origin` on, in blocks of at most `rows`."""
        for start in range(origin, tokens, rows):
            yield Block(self, tokens, start, min(rows, tokens - start), device, origin)


@dataclass(frozen=True)
class Block:
    """Rows `start … start + rows − 1` of a sequence of `tokens`. origin: position of the first row that is given."""

    layout: Layout
    tokens: int
    start: int
    rows: int
    device: torch.device
    origin: int = 0

    @property
    def here(self) -> slice:
        """The place of its rows among those given."""
        return slice(self.start - self.origin, self.stop - self.origin)

    @property
    def stop(self) -> int:
        return self.start + self.rows

    @property
    def keys(self) -> int:
        """How many keys, from the first, any of the rows sees."""
        return self.stop if self.layout.causal else self.tokens

    @property
    def columns(self) -> int:
        """Columns of the view by lag; in a causal block the future of a row is in the hidden columns of the next."""
        return self.keys if self.layout.causal or not self.layout.by_lag else self.keys + self.rows - 1

    @property
    def pitch(self) -> int:
        return self.columns + int(self.layout.by_lag)

    def lags(self) -> slice:
        """Which part of a (reversed) table the columns are."""
        first = self.layout.length - self.stop if self.layout.by_lag else 0
        return slice(first, first + self.columns)

    def buffer(self, like_HB: Tensor) -> Tensor:
        """`[H, B, R, P]`, heads and sequences as in `like`; zero where no product by key writes."""
        buffer_HBRP = empty((*like_HB.shape[:2], self.rows, self.pitch), like_HB)
        if self.layout.by_lag:
            unwritten = buffer_HBRP[..., 0, : self.rows] if self.layout.causal else buffer_HBRP
            unwritten.zero_()
        return buffer_HBRP

    def by_lag(self, buffer_HBRP: Tensor) -> Tensor:
        """`[H, B·R, columns]`."""
        return buffer_HBRP.flatten(1, 2)[..., : self.columns]

    def by_key(self, buffer_HBRP: Tensor) -> Tensor:
        """`[H·B, R, keys]`."""
        if not self.layout.by_lag:
            return buffer_HBRP.flatten(0, 1)
        shape = (buffer_HBRP.shape[0] * buffer_HBRP.shape[1], self.rows, self.keys)
        return buffer_HBRP.as_strided(shape, (self.rows * self.pitch, self.pitch - 1, 1), self.rows - 1)

    @cached_property
    def visible(self) -> list[tuple[int, Tensor]]:
        """(first column, 1 at scores of visible keys and 0 elsewhere) of each part of the block that has both."""
        if self.rows == 1:
            return []
        step_R = torch.arange(self.rows, device=self.device)
        # 0 where the key would be before the first one
        inside_RC = (step_R[None, :-1] >= self.rows - 1 - step_R[:, None]).float()
        if self.layout.by_lag:
            return [(0, inside_RC)] if self.layout.causal else [(0, inside_RC), (self.tokens, 1.0 - inside_RC)]
        return [(self.start + 1, 1.0 - inside_RC.flip(0))] if self.layout.causal else []

    def hide(self, buffer_HBRP: Tensor) -> None:
        """Sets everything but scores of visible keys to zero."""
        for first, visible_RC in self.visible:  # hidden entries are finite; a product is much faster than masked_fill_
            buffer_HBRP[..., first : first + visible_RC.shape[1]].mul_(visible_RC)
        if self.layout.by_lag and self.layout.causal:
            buffer_HBRP[..., self.columns :].zero_()


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised memory."""
    return like.new_empty(shape)


def reversed_table(table: Tensor, layout: Layout) -> Tensor:
    """A table along dimension 1 in the order of columns, and back."""
    return table.flip(1) if layout.by_lag else table
