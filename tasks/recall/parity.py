"""Running parity (`parity`): whether the number of ones so far is odd, at every position."""

from __future__ import annotations

import numpy as np

from tasks.recall.sampling import Ints
from tasks.recall.word_problem import WordProblem


class Parity(WordProblem):
    """A string of bits, all equally likely. The target at position t is (b_1 + … + b_t) mod 2; all are scored.

        0 1 1 0 1 …       scored: 0 1 0 0 1 …

    It is the word problem of the group of two elements. A linear recurrence whose transitions have no negative
    eigenvalue cannot solve it at every length (arXiv 2411.12537). Chance is 1 in 2.

    Defaults are the suite's own: 64 tokens, 100,000 training sequences. The paper scores sequences longer than those of
    training; here all splits have the same lengths.
    """

    name = "parity"
    summary = "running parity of a string of bits (synthetic)"
    protocol = "parity/1"
    source = "arXiv 2411.12537 (parity)"
    notes = ("chance is 1 in 2; the first bit of a sequence is its own parity",)
    order = 2

    def products(self, elements: Ints) -> Ints:
        return np.cumsum(elements, axis=1) % 2
