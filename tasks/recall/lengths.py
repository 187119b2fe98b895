"""Ladders of lengths: a task on short and long sequences, trained on their mixture and measured on each.

n: sequences; T: tokens of the longest.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tasks.recall.ladder import LadderOptions, LadderTask


class LengthLadderOptions(LadderOptions):
    """Options of a task that can be a ladder of lengths."""

    rung_option = "length"
    rungs_are = "lengths of at least {}"

    ladder: str = Field(
        default="",
        max_length=200,
        description="lengths of a ladder of difficulties, rising, such as 8,16,32, in equal parts; the last is "
        "`length`; accuracy is the mean over them; empty: `length` alone",
    )


class LengthLadderTask(LadderTask):
    """A task that its option `ladder` makes a mixture of lengths in equal parts. Shorter sequences are filled up after
    their end, which no scored token can see.
    """

    options: LengthLadderOptions

    def placed(self, tokens: Tensor, rung: int, fill: int) -> Tensor:
        """A rung's own tokens, then `fill`.

        Args:
            tokens: inputs or targets `[n, t]`, t ≤ T.
            rung: the rung's own length.
            fill: the token, or target, of the places after the end.

        Returns:
            `[n, T]`.
        """
        return F.pad(tokens, (0, self.spec.length - tokens.shape[1]), value=fill)
