"""The published form of MAD's fuzzy recall: pairs of motifs, one of them repeated at the end (arXiv 2403.17844).

N: sequences; S: pairs of a sequence; K, V: tokens of the longest key and value; T: tokens of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.recall.sampling import Ints, distinct

ABSENT = -1  # a place of a motif that its length does not reach


@dataclass(frozen=True)
class FuzzyForm:
    """Sizes of the sequences. The vocabulary is the keys' tokens, the values' tokens and the padding, in this order.

    fixed_key: all keys have the greatest length, as in evaluation; otherwise all lengths are equally likely.
    """

    length: int
    vocab: int
    key: int
    value: int
    fixed_key: bool

    @property
    def key_tokens(self) -> int:
        return (self.vocab - 1) // 2


def draw_fuzzy(random: np.random.Generator, n: int, form: FuzzyForm, ignored: int) -> tuple[Ints, Ints]:
    """Sequences in which every value of a key seen before is a target, and those of the repeated pair at the end.

    Args:
        random: The source of all draws.
        n: Number of sequences.
        form: Their sizes.
        ignored: The target of a place that is not scored.

    Returns:
        Inputs and targets, both `[n, T]`: T + 1 tokens, padded on the left, without the last or the first of them.
    """
    slots = form.length // 2
    drawn = _pairs(random, n * slots, form).reshape(n, slots, -1)
    probe = _pairs(random, n, form)
    limit = form.length - _size(probe) - form.key - form.value  # a pair is begun while the tokens are fewer than this
    probe_at = random.integers(np.maximum(form.length - 2 * _size(probe), 1))
    pairs = np.full((n, slots + 1, form.key + form.value), ABSENT, dtype=np.int64)
    seen = np.zeros((n, slots + 1), dtype=np.bool_)
    length, is_shown = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    for s in range(slots):
        active = length < limit
        if not active.any():
            break
        inserted = active & (length >= probe_at) & ~is_shown
        now = np.where(inserted[:, None], probe, drawn[:, s])
        is_probe = _same_key(now, probe, form)
        now = np.where(is_probe[:, None], probe, now)
        earlier = _same_key(pairs[:, :s], now[:, None], form)
        seen[:, s] = active & earlier.any(1)
        first = pairs[np.arange(n), earlier.argmax(1)] if s else now
        now = np.where(seen[:, s, None], first, now)
        pairs[:, s] = np.where(active[:, None], now, ABSENT)
        is_shown |= active & is_probe
        length += _size(pairs[:, s])
    pairs[:, -1], seen[:, -1] = probe, True
    return _padded(pairs, seen, form, ignored)


def _pairs(random: np.random.Generator, n: int, form: FuzzyForm) -> Ints:
    """`[n, K + V]`: a key and a value of different tokens each, in random order, ABSENT after their ends."""
    halves = [(form.key, form.key_tokens, 0), (form.value, form.vocab - 1 - form.key_tokens, form.key_tokens)]
    motifs = []
    for place, (longest, tokens, start) in enumerate(halves):
        fixed = form.fixed_key and place == 0
        lengths = np.full((n, 1), longest) if fixed else random.integers(1, longest + 1, size=(n, 1))
        motifs.append(np.where(np.arange(longest) < lengths, start + distinct(random, n, tokens, longest), ABSENT))
    return np.concatenate(motifs, axis=1)


def _size(pairs: Ints) -> Ints:
    return np.asarray((pairs != ABSENT).sum(-1), dtype=np.int64)


def _same_key(a: Ints, b: Ints, form: FuzzyForm) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a[..., : form.key] == b[..., : form.key]).all(-1)
    return same


def _padded(pairs: Ints, seen: NDArray[np.bool_], form: FuzzyForm, ignored: int) -> tuple[Ints, Ints]:
    n = len(pairs)
    scored = np.zeros(pairs.shape, dtype=np.bool_)
    scored[..., form.key :] = seen[..., None]
    tokens, is_target = pairs.reshape(n, -1), scored.reshape(n, -1)
    present = tokens != ABSENT
    rows, places = np.nonzero(present)
    there = (form.length + 1 - present.sum(1, keepdims=True) + np.cumsum(present, axis=1) - 1)[rows, places]
    whole = np.full((n, form.length + 1), form.vocab - 1, dtype=np.int64)
    targets = np.full_like(whole, ignored)
    whole[rows, there] = tokens[rows, places]
    targets[rows, there] = np.where(is_target[rows, places], tokens[rows, places], ignored)
    return whole[:, :-1], targets[:, 1:]
