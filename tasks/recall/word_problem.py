"""Word problems of finite groups: the product of all elements so far, at every position (`parity`, `s3`, `s5`).

n: sequences; T: tokens of a sequence; G: elements of the group.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from itertools import permutations
from typing import ClassVar

import numpy as np
from pydantic import Field

from tasks.base import Split, TaskOptions, TextInput
from tasks.recall.lengths import LengthLadderOptions, LengthLadderTask
from tasks.recall.sampling import Ints, drawn_apart

SHORTEST = 8  # enough different sequences of every group for three splits


class WordOptions(LengthLadderOptions):
    """Options of a word problem. All of them are part of a run's identity."""

    length: int = Field(default=64, ge=SHORTEST, le=65536, description="group elements, and tokens T, of a sequence")
    train_examples: int = Field(default=100_000, ge=1, description="training sequences; each epoch shuffles them again")
    valid_examples: int = Field(default=3000, ge=1, description="validation sequences")
    test_examples: int = Field(default=3000, ge=1, description="test sequences")

    @property
    def least_rung(self) -> int:
        return SHORTEST


class S3Options(WordOptions):
    """Options of `s3`."""

    moved: int = Field(
        default=3, ge=2, le=3, description="points that a token moves at most; 2: swaps and the identity"
    )


class S5Options(WordOptions):
    """Options of `s5`."""

    moved: int = Field(
        default=5, ge=2, le=5, description="points that a token moves at most; 2: swaps and the identity"
    )


class WordProblem(LengthLadderTask):
    """A sequence of group elements, all equally likely. The target at position t is g_1 · g_2 · … · g_t; every position
    is scored. Tokens and targets are the same G elements.

    A model must keep the product as a state that every token changes. Unless TC0 = NC1, attention of a fixed depth
    cannot do that for S5 at every length, and neither can S4 or Mamba (arXiv 2404.08819). Linear recurrences whose
    transitions have only positive eigenvalues cannot do it for parity (arXiv 2411.12537).

    No sequence is in two splits. A short sequence may be the beginning of a longer one in another split.
    """

    order: ClassVar[int]  # elements G of the group
    Options: ClassVar[type[TaskOptions]] = WordOptions
    options: WordOptions

    @abstractmethod
    def products(self, elements: Ints) -> Ints:
        """The products of all elements so far.

        Args:
            elements: `[n, T]`, numbers in [0, G).

        Returns:
            `[n, T]`, numbers in [0, G).
        """

    @property
    def drawn(self) -> Ints:
        """The elements that a sequence is drawn from, `[elements]`."""
        return np.arange(self.order)

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=self.order, length=self.options.length)

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        return self.draw_split("train", random, n)

    def draw_split(self, split: Split, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        T, drawn = self.options.length, self.drawn
        inputs = drawn_apart(
            lambda places: drawn[random.integers(len(drawn), size=(len(places), T))], n, split, np.zeros(n, np.bool_)
        )
        return inputs, self.products(inputs)


class PermutationProblem(WordProblem):
    """The word problem of all permutations of `points` points.

    Element number e is the e-th permutation in lexicographic order; 0 is the identity. The product a · b applies a
    first and then b. With `moved`, a token moves at most so many points: of five, 2 leaves 10 swaps and the identity, 3
    also 20 cycles of three points. They still have all permutations as products.
    """

    points: ClassVar[int]
    options: S3Options | S5Options

    @property
    def drawn(self) -> Ints:
        elements = np.array(list(permutations(range(self.points))))
        return np.flatnonzero((elements != np.arange(self.points)).sum(1) <= self.options.moved)

    def products(self, elements: Ints) -> Ints:
        table_GG = multiplication(self.points)
        found = elements.copy()
        for t in range(1, elements.shape[1]):
            found[:, t] = table_GG[found[:, t - 1], elements[:, t]]
        return found


class S3(PermutationProblem):
    """The word problem of S3, the 6 permutations of three points: the smallest group that is not commutative, and
    solvable. Chance is 1 in 6.

    Defaults are the suite's own: 64 tokens, 100,000 training sequences. The papers also test sequences longer than
    those of training; here all splits have the same lengths.
    """

    name = "s3"
    summary = "word problem of S3: the product of all permutations of 3 points so far (synthetic)"
    protocol = "s3/1"
    source = "arXiv 2411.12537 (group word problems)"
    notes = ("chance is 1 in 6; the first token of a sequence is its own product",)
    Options = S3Options
    points = 3
    order = 6


class S5(PermutationProblem):
    """The word problem of S5, the 120 permutations of five points: the smallest symmetric group that is not solvable,
    for which the word problem is complete for NC1. Chance is 1 in 120. arXiv 2411.12537 has the easier variants with
    swaps only and with swaps and cycles of three points.

    Defaults are the suite's own, as in `s3`.
    """

    name = "s5"
    summary = "word problem of S5: the product of all permutations of 5 points so far (synthetic)"
    protocol = "s5/1"
    source = "arXiv 2404.08819 (word problem of S5)"
    notes = ("chance is 1 in 120; the first token of a sequence is its own product",)
    Options = S5Options
    points = 5
    order = 120


@cache
def multiplication(points: int) -> Ints:
    """`[G, G]`: the number of a · b, a first and then b, for the permutations of so many points."""
    elements_GP = np.array(list(permutations(range(points))))
    number = {tuple(element): e for e, element in enumerate(elements_GP.tolist())}
    return np.array([[number[tuple(b[a].tolist())] for b in elements_GP] for a in elements_GP])
