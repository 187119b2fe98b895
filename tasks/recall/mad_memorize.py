"""MAD's memorisation (`mad-memorize`, arXiv 2403.17844): facts that no sequence holds, so the weights must."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.base import TaskOptions
from tasks.randomness import EXAMPLES, generator
from tasks.recall.base import IGNORED, RecallOptions, RecallTask
from tasks.recall.sampling import SPLITS, Ints, distinct

FACTS = len(SPLITS)  # the random stream of the facts; the earlier ones are the splits'


class MemorizeOptions(RecallOptions):
    """Options of `mad-memorize`, with the published values."""

    length: int = Field(default=32, ge=2, le=65536, description="tokens T of a sequence; even")
    vocab: int = Field(default=256, ge=4, le=2**20, description="keys, values and one mask token, the last")
    train_examples: int = Field(default=256, ge=1, description="training sequences; each epoch shuffles them again")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length % 2:
            raise ValueError(f"length {self.length} must be even: a sequence is pairs of two tokens")
        return self


class MadMemorize(RecallTask):
    """Each key has one value, the same in all sequences and splits; the sequences contain only keys and mask tokens.

        k_a ? k_b ? k_a ? …       scored: the value of the key, at the mask token ? after it

    Keys are the first half of the vocabulary without its last token, values the rest; no two keys share a value. The
    facts depend on the data seed. Keys are drawn with replacement. The context does not contain the answer: a model
    must have learned the facts.

    Published: 32 tokens, a vocabulary of 256, 256 training and 1,280 test sequences.
    """

    name = "mad-memorize"
    summary = "MAD: values of keys that are the same for all sequences but in none of them (synthetic)"
    protocol = "mad-memorize/1"
    source = "arXiv 2403.17844 (memorisation)"
    Options: ClassVar[type[TaskOptions]] = MemorizeOptions
    options: MemorizeOptions

    def facts(self) -> Ints:
        """The value of each key, `[keys]`."""
        rest = self.options.vocab - 1
        keys = rest // 2
        return keys + distinct(generator(EXAMPLES, self.options.data_seed, FACTS), 1, rest - keys, keys)[0]

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o, values = self.options, self.facts()
        keys = random.integers(len(values), size=(n, o.length // 2))
        inputs = np.full((n, o.length), o.vocab - 1, dtype=np.int64)
        inputs[:, ::2] = keys
        targets = np.full_like(inputs, IGNORED)
        targets[:, 1::2] = values[keys]
        return inputs, targets
