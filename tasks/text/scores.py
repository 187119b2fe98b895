"""Scores of next-token prediction: the loss, bits per byte (comparable between tokenizers), perplexity, word counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # target of padding, which is not scored


def count_scored(targets: Tensor) -> float:
    """The number of tokens that are scored."""
    return float((targets != IGNORED).sum().item())


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits `[B, T, V]` over the scored targets `[B, T]`."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def total_nats(logits: Tensor, targets: Tensor) -> float:
    """Summed cross-entropy in nats of logits `[B, T, V]` over the scored targets `[B, T]`; the sum is in float64."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nats.double().sum().item()


def bits_by_row(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy in bits of each row, `[B]`, float64, of logits `[B, T, V]` over its scored targets."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nats.view(targets.shape).double().sum(-1) / math.log(2)


def bits_per_byte(nats: float, size: float) -> float:
    """Bits per byte of a text of `size` bytes, all of whose tokens cost `nats` in total."""
    return nats / size / math.log(2)


def perplexity(nats: float) -> float:
    """exp(nats), of the mean nats per token or word."""
    return math.exp(nats) if not nats > 700 else math.inf  # math.exp raises beyond 709; nan stays nan


class WordCounter:
    """Counts the words (between ASCII white space) that begin in tokens, from the bytes of each token.

    The sum over a text does not depend on how the text is cut into windows.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        solid = [[not token[i : i + 1].isspace() for i in range(len(token))] for token in token_bytes]
        self._inside = np.array(
            [sum(now and not before for before, now in pairwise(marks)) for marks in solid], dtype=np.int64
        )
        self._begins = np.array([bool(marks) and marks[0] for marks in solid])
        self._leaves_open = np.array([bool(marks) and marks[-1] for marks in solid])

    def count(self, before: NDArray[np.int64], tokens: NDArray[np.int64]) -> int:
        """Words that begin in `tokens` `[n]`; `before` `[n]` is the token before each of them."""
        return int(self._inside[tokens].sum() + (self._begins[tokens] & ~self._leaves_open[before]).sum())
