"""Mano (`mano`, arXiv 2512.17351): mental arithmetic, the value of a prefix expression modulo 23.

n: sequences; L: operations of the longest expression; T = 2 L + 4: tokens of a sequence.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.base import Split, TaskOptions, TextInput
from tasks.recall.base import IGNORED
from tasks.recall.lengths import LengthLadderOptions, LengthLadderTask
from tasks.recall.sampling import Ints, drawn_apart

OPERATIONS = 3  # +, -, *, in this order after the numbers


class ManoOptions(LengthLadderOptions):
    """Options of `mano`. All of them are part of a run's identity."""

    rungs_are = "numbers of operations of at least {}"

    length: int = Field(
        default=10, ge=1, le=256, description="operations L of the longest expression; a sequence has 2 L + 4 tokens"
    )
    shortest: int = Field(
        default=1,
        ge=1,
        description="operations of the shortest expression; all numbers of operations from it to `length` are equally "
        "likely; with a ladder, the rung's number is the only one",
    )
    modulus: int = Field(default=23, ge=2, le=1024, description="numbers are 0 to modulus - 1")
    train_examples: int = Field(default=100_000, ge=1, description="training sequences; each epoch shuffles them again")
    valid_examples: int = Field(default=3000, ge=1, description="validation sequences")
    test_examples: int = Field(default=3000, ge=1, description="test sequences")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shortest > self.length:
            raise ValueError(f"shortest {self.shortest} must be at most length, which is {self.length}")
        if self.ladder and self.shortest != 1:
            raise ValueError(f"shortest {self.shortest} has no effect with a ladder; leave it out")
        return self

    def of_rung(self, rung: int) -> Self:
        return type(self).model_validate({**dict(super().of_rung(rung)), "shortest": rung})


class Mano(LengthLadderTask):
    """An expression in prefix notation over the integers modulo 23, whose value is predicted at once.

        <bos> <len_3> * + 5 21 - 4 9 <ans>       scored: the value at <ans>, (5 + 21) · (4 - 9) mod 23 = 8

    An expression has ℓ operations, `shortest` to L, all equally likely, and ℓ + 1 numbers. The first operation is +, -
    or *, and its left side has 0 to ℓ - 1 of the other operations, each equally likely; both sides are drawn in the
    same way. Numbers are uniform in 0 to 22. The token <len_ℓ> gives ℓ. <bos> also fills the places after <ans>.
    Tokens: the numbers, then + - * <bos> <ans> <len_1> … <len_L>.

    Nothing is written between the expression and its value, so the model must know the results of single operations
    and combine them in one pass. Chance is 1 in 23; always answering 0 is right for 6 to 8 in 100, as products are
    often 0.

    With `ladder`, equal parts of the sequences have exactly each rung's number of operations.

    From the paper: the notation, the three operations, the modulus and the uniform ℓ. Of this suite, and not compared
    with the paper's code: one expression per sequence, of which only the value is trained on and scored; the
    distribution over trees; the default L and amounts of data; the options. No expression is in two splits, except
    those of one operation (1,587), which are facts to be learned.
    """

    name = "mano"
    summary = "Mano: the value of a prefix expression modulo 23, without intermediate steps (synthetic)"
    protocol = "mano/1"
    source = "arXiv 2512.17351 (Mano)"
    notes = (
        "chance is 1 in 23 with the default modulus; always answering 0 is right for 6 to 8 in 100",
        "expressions of one operation are in all splits: they are facts to be learned",
    )
    Options: ClassVar[type[TaskOptions]] = ManoOptions
    options: ManoOptions

    @property
    def filler(self) -> int:
        """The token <bos>, also after the end of an expression."""
        return self.options.modulus + OPERATIONS

    @property
    def spec(self) -> TextInput:
        o = self.options
        return TextInput(vocab=o.modulus + OPERATIONS + 2 + o.length, length=2 * o.length + 4)

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        return self.draw_split("train", random, n)

    def draw_split(self, split: Split, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o, bos = self.options, self.filler
        operations = random.integers(o.shortest, o.length + 1, size=n)
        expressions = drawn_apart(
            lambda places: prefix_expressions(random, operations[places], o.length, o.modulus),
            n, split, in_all_splits=operations == 1,
        )  # fmt: skip
        inputs = np.full((n, self.spec.length), bos, dtype=np.int64)
        inputs[:, 1] = bos + 1 + operations
        inputs[:, 2:-1] = np.where(expressions == NOTHING, bos, expressions)
        ends = 2 * operations + 3
        targets = np.full_like(inputs, IGNORED)
        inputs[np.arange(n), ends] = bos + 1
        targets[np.arange(n), ends] = values_of(expressions, o.modulus)
        return inputs, targets


NOTHING = -1  # a place after the end of an expression


def prefix_expressions(random: np.random.Generator, operations: Ints, most: int, modulus: int) -> Ints:
    """Random expressions, from the first token to the last.

    Args:
        random: The source of all draws.
        operations: Operations of each, `[n]`, at most `most`.
        most: The places for operations.
        modulus: Numbers are below it; the operations +, -, * are the three tokens from it on.

    Returns:
        `[n, 2 · most + 1]`, NOTHING after the end.
    """
    n, rows = len(operations), np.arange(len(operations))
    tokens = np.full((n, 2 * most + 1), NOTHING, dtype=np.int64)
    waiting = np.zeros((n, most + 2), dtype=np.int64)  # operations of the parts that come next, the nearest last
    waiting[:, 0], count = operations, np.ones(n, dtype=np.int64)
    for t in range(2 * most + 1):
        size, active = waiting[rows, count - 1], count > 0
        left = random.integers(np.maximum(size, 1))
        operation, number = random.integers(OPERATIONS, size=n), random.integers(modulus, size=n)
        tokens[active, t] = np.where(size > 0, modulus + operation, number)[active]
        opened = active & (size > 0)
        waiting[rows[opened], count[opened] - 1] = (size - 1 - left)[opened]
        waiting[rows[opened], count[opened]] = left[opened]
        count += np.where(opened, 1, np.where(active, -1, 0))
    return tokens


def values_of(tokens: Ints, modulus: int) -> Ints:
    """`[n]`: the values of expressions `[n, P]`, read from the last token to the first."""
    n, rows = len(tokens), np.arange(len(tokens))
    stack, count = np.zeros((n, tokens.shape[1] // 2 + 2), dtype=np.int64), np.zeros(n, dtype=np.int64)
    for token in tokens.T[::-1]:
        a, b = stack[rows, count - 1], stack[rows, count - 2]
        results = np.stack([token, a + b, a - b, a * b])
        which = np.maximum(token - modulus + 1, 0)
        place = np.where(which > 0, count - 2, count)
        there = token != NOTHING
        stack[rows[there], place[there]] = (results[which, rows] % modulus)[there]
        count = np.where(there, place + 1, count)
    return stack[:, 0]
