"""MAD's compression (`mad-compress`, arXiv 2403.17844): the whole sequence, read back from the state of its last token
alone.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from tasks.base import Batch, TaskOptions, TextInput
from tasks.recall.base import IGNORED, RecallOptions, RecallTask
from tasks.recall.sampling import Ints


class CompressOptions(RecallOptions):
    """Options of `mad-compress`, with the published values."""

    length: int = Field(
        default=32, ge=2, le=4096, description="tokens T of a sequence, the sign to compress among them"
    )
    vocab: int = Field(default=16, ge=4, le=2**16, description="tokens; the last is the sign to compress")


class MadCompress(RecallTask):
    """T - 1 random tokens, then the sign to compress. All T - 1 tokens are scored, and only the output at the sign is
    looked at.

        a b b c … >       outputs at > : [T - 1, vocab - 1] logits, a row a token

    The paper hands the last token's state, with an encoding of the position asked for, to an MLP that gives that
    position's token. A backbone of this suite ends in one linear head, so here the head has an output for each position
    and token, and the position's own rows stand in for its encoding: the bottleneck, one state of D numbers, is the
    same; the decoder is linear after the last block. Parameters of the head do not count for the budget. Model outputs
    other than those at the sign are ignored.

    Published: 32 tokens, a vocabulary of 16, 12,800 training and 1,280 test sequences.
    """

    name = "mad-compress"
    summary = "MAD: read the sequence back from the last token's state (synthetic; a linear decoder)"
    protocol = "mad-compress/1"
    source = "arXiv 2403.17844 (compression)"
    notes = (
        "decoded by a linear head with rows for each position; the paper has an MLP and an encoding of the position",
    )
    Options: ClassVar[type[TaskOptions]] = CompressOptions
    options: CompressOptions

    @property
    def symbols(self) -> int:
        """Tokens that a sequence is made of."""
        return self.options.vocab - 1

    @property
    def spec(self) -> TextInput:
        """The vocabulary is that of the outputs; inputs use its first `vocab` tokens (all of them, where that is
        more).
        """
        return TextInput(
            vocab=max((self.options.length - 1) * self.symbols, self.options.vocab), length=self.options.length
        )

    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        inputs = random.integers(self.symbols, size=(n, self.options.length))
        inputs[:, -1] = self.symbols
        targets = inputs.copy()
        targets[:, -1] = IGNORED
        return inputs, targets

    def scored(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits `[B·(T-1), vocab-1]` of all tokens, from the outputs at the last position."""
        asked = self.options.length - 1
        logits = outputs[:, -1, : asked * self.symbols].float()
        return logits.reshape(-1, self.symbols), batch.targets[:, :-1].reshape(-1)
