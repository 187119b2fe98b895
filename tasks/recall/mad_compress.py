"""MAD's compression (`mad-compress`, arXiv 2403.17844): the sequence is decoded from the state of its last token."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tasks.base import Batch, TaskOptions, TextInput
from tasks.recall.base import IGNORED, RecallOptions, RecallTask
from tasks.recall.sampling import Ints


class CompressOptions(RecallOptions):
    """Options of `mad-compress`, with the published values."""

    length: int = Field(
        default=32, ge=2, le=4096, description="tokens T of a sequence, including the compression token"
    )
    vocab: int = Field(default=16, ge=4, le=2**16, description="tokens; the last one is the compression token")


class MadCompress(RecallTask):
    """T - 1 random tokens, then the compression token. All T - 1 tokens are scored, from the output at the compression
    token alone.

        a b b c … >       outputs at > : [T - 1, vocab - 1] logits, one row per token

    In the paper, an MLP decodes the last token's state together with an encoding of the requested position. A backbone
    of this suite ends in one linear head, so here the head has an output for each position and token, and the weight
    rows of a position replace its encoding. The bottleneck is the same, one state of D numbers; the decoder is linear
    after the last block. The head's parameters do not count for the budget. All other model outputs are ignored.

    Published: 32 tokens, a vocabulary of 16, 12,800 training and 1,280 test sequences.
    """

    name = "mad-compress"
    summary = "MAD: decode the sequence from the last token's state (synthetic; a linear decoder)"
    protocol = "mad-compress/1"
    source = "arXiv 2403.17844 (compression)"
    notes = (
        "decoded by a linear head with rows for each position; the paper uses an MLP and an encoding of the position",
    )
    Options: ClassVar[type[TaskOptions]] = CompressOptions
    options: CompressOptions

    @property
    def symbols(self) -> int:
        """Size of the vocabulary that sequences are drawn from."""
        return self.options.vocab - 1

    @property
    def spec(self) -> TextInput:
        """The vocabulary is that of the outputs, (T - 1)(vocab - 1) logits, or `vocab` where that is more; inputs use
        the first `vocab` tokens of it.
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
        tokens = self.options.length - 1
        logits = outputs[:, -1, : tokens * self.symbols].float()
        return logits.reshape(-1, self.symbols), batch.targets[:, :-1].reshape(-1)

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        logits, targets = self.scored(outputs, batch)
        correct_BT = (logits.argmax(-1) == targets).view(batch.size, -1).double()
        return torch.stack([correct_BT.sum(-1), torch.ones_like(correct_BT).sum(-1)], -1)
