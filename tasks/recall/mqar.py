"""Multi-query associative recall (`mqar`): after the key-value pairs, each key is repeated once and its value is the
target.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.base import TaskOptions
from tasks.recall.base import IGNORED
from tasks.recall.ladder import LadderTask, VocabularyLadderOptions
from tasks.recall.sampling import Ints, distinct, weighted_order


class MqarOptions(VocabularyLadderOptions):
    """Options of `mqar`, with the published values. All of them are part of a run's identity."""

    length: int = Field(default=64, ge=4, le=65536, description="tokens T of a sequence; even, at least 4 per pair")
    vocab: int = Field(
        default=8192, ge=4, le=2**20, description="tokens: 0 is filling, keys are below vocab/2, values from there on"
    )
    pairs: int = Field(default=4, ge=1, description="key-value pairs per sequence")
    power_a: float = Field(
        default=0.01, gt=0, le=1, description="power law of the gaps before a query: near 0, most are short; 1: uniform"
    )
    noise: Literal["random", "zero"] = Field(
        default="random", description="tokens between the queries: random, or token 0"
    )
    train_examples: int = Field(default=100_000, ge=1, description="training sequences; each epoch shuffles them again")
    valid_examples: int = Field(default=3000, ge=1, description="validation sequences")
    test_examples: int = Field(default=3000, ge=1, description="test sequences")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length % 2 or 4 * self.pairs > self.length:
            raise ValueError(
                f"length {self.length} must be even and at least 4 tokens per pair, {4 * self.pairs} for "
                f"{self.pairs} pairs"
            )
        if self.vocab % 2 or self.pairs > self.vocab // 2 - 1:
            raise ValueError(
                f"vocab {self.vocab} must be even and at least {2 * self.pairs + 2}, for the keys of {self.pairs} pairs"
            )
        return self

    @property
    def least_rung(self) -> int:
        return 2 * self.pairs + 2


class Mqar(LadderTask):
    """Zoology's generator (Arora et al., arXiv 2312.04927, section 3 and its appendix on synthetics).

        k_1 v_1 … k_n v_n | then, at even places, each key once; n pairs, T tokens

    Keys are n different ones of 1 … vocab/2 - 1, values n different ones of vocab/2 … vocab - 1, fixed for one sequence
    only. After the pairs there are (T - 2n)/2 places of two tokens. The i-th key is repeated in the i-th of n places
    drawn without replacement with probability ∝ a·x^(a-1), x = 1, 2, … the place and a = `power_a`; it is the place's
    first token, and the value is its target. All other tokens are not scored; they are random tokens of the whole
    vocabulary or, with `noise=zero`, token 0. The value does not follow its query. A random token may by chance repeat
    a key; the value is still that of the pair at the beginning.

    With `ladder`, equal parts of the sequences have each vocabulary, all with the same number of pairs.
    """

    name = "mqar"
    summary = "multi-query associative recall: the value of each key, from pairs at the beginning (synthetic)"
    protocol = "mqar/1"
    source = "arXiv 2312.04927 (multi-query associative recall)"
    Options: ClassVar[type[TaskOptions]] = MqarOptions
    options: MqarOptions

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o = self.options
        keys = 1 + distinct(random, n, o.vocab // 2 - 1, o.pairs)
        values = o.vocab // 2 + distinct(random, n, o.vocab // 2, o.pairs)
        places = np.arange(1, (o.length - 2 * o.pairs) // 2 + 1, dtype=np.float64)
        queries = 2 * o.pairs + 2 * weighted_order(random, n, o.power_a * places ** (o.power_a - 1), o.pairs)
        inputs = np.zeros((n, o.length), dtype=np.int64)
        inputs[:, 0 : 2 * o.pairs : 2], inputs[:, 1 : 2 * o.pairs : 2] = keys, values
        np.put_along_axis(inputs, queries, keys, axis=1)
        if o.noise == "random":
            inputs = np.where(inputs == 0, random.integers(o.vocab, size=inputs.shape), inputs)
        targets = np.full_like(inputs, IGNORED)
        np.put_along_axis(targets, queries, values, axis=1)
        return inputs, targets
