"""Words of a text counted over its tokens: any cut into windows gives the same sum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


class WordCounter:
    """Counts the words (between ASCII white space) that begin in tokens, from what bytes each token stands for."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        solid = [[not piece[i : i + 1].isspace() for i in range(len(piece))] for piece in token_bytes]
        self._inside = np.array(
            [sum(now and not before for before, now in pairwise(marks)) for marks in solid], dtype=np.int64
        )
        self._begins = np.array([bool(marks) and marks[0] for marks in solid])
        self._leaves_open = np.array([bool(marks) and marks[-1] for marks in solid])

    def count(self, before: NDArray[np.int64], tokens: NDArray[np.int64]) -> int:
        """Words that begin in `tokens`, each given with the token before it."""
        return int(self._inside[tokens].sum() + (self._begins[tokens] & ~self._leaves_open[before]).sum())
