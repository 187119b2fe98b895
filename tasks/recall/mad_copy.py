"""MAD's selective copying (`mad-copy`, arXiv 2403.17844): the tokens between blanks, in their order."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tasks.base import TaskOptions
from tasks.recall.base import IGNORED, RecallOptions, RecallTask
from tasks.recall.sampling import Ints


class CopyOptions(RecallOptions):
    """Options of `mad-copy`, with the published values."""

    length: int = Field(
        default=256, ge=4, le=65536, description="tokens T of a sequence; more than twice the tokens to copy"
    )
    vocab: int = Field(
        default=16, ge=4, le=2**20, description="tokens; the last one is the copy token, the one before it the blank"
    )
    tokens: int = Field(default=16, ge=1, description="tokens to copy")
    places: Literal["gaps", "uniform"] = Field(
        default="gaps",
        description="gaps (published): each blank is put before one of the tokens, all equally likely; uniform: all "
        "sets of places before the copy token are equally likely",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length < 2 * self.tokens + 1:
            raise ValueError(
                f"length {self.length} must be at least {2 * self.tokens + 1}, for {self.tokens} tokens to copy"
            )
        return self


class MadCopy(RecallTask):
    """n tokens in order at random places between blanks, the copy token, then n blanks.

        _ a _ _ b _ c _ > _ _ _       scored at the last n blanks: a, b, c

    Tokens are drawn with replacement from the vocabulary without the blank and the copy token. Each blank is put before
    one of the tokens, all equally likely, so the last token is followed by the copy token and the gaps have nearly
    the same length. With `places=uniform`, which version 1 of this task used, all sets of places are equally likely.

    Published: 256 tokens, a vocabulary of 16, 16 tokens to copy, 12,800 training and 1,280 test sequences.
    """

    name = "mad-copy"
    summary = "MAD: copy the tokens between blanks, in order (synthetic)"
    protocol = "mad-copy/2"
    version = 2
    source = "arXiv 2403.17844 (selective copying)"
    Options: ClassVar[type[TaskOptions]] = CopyOptions
    options: CopyOptions

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        o = self.options
        before = o.length - o.tokens - 1
        tokens = random.integers(o.vocab - 2, size=(n, o.tokens))
        if o.places == "uniform":
            places = np.sort(np.argsort(random.random((n, before)), axis=1)[:, : o.tokens], axis=1)
        else:
            gaps = random.multinomial(before - o.tokens, np.full(o.tokens, 1 / o.tokens), size=n)
            places = np.cumsum(gaps + 1, axis=1) - 1
        inputs = np.full((n, o.length), o.vocab - 2, dtype=np.int64)
        np.put_along_axis(inputs, places, tokens, axis=1)
        inputs[:, before] = o.vocab - 1
        targets = np.full_like(inputs, IGNORED)
        targets[:, before + 1 :] = tokens
        return inputs, targets
