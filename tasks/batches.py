"""A batch, and the part of the data that one of several processes trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.errors import DataError

if TYPE_CHECKING:  # importing torch takes seconds, and describing a task needs none of it
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Batch:
    """One batch: what the backbone reads, and what the loss compares its outputs with. Both have B rows, one per
    example.
    """

    inputs: Tensor
    targets: Tensor

    @property
    def size(self) -> int:
        """Examples B (sequences, images, windows)."""
        return self.inputs.shape[0]

    def to(self, device: Any) -> Batch:
        """Moves the batch.

        Args:
            device: where to, as PyTorch names devices.

        Returns:
            The same batch on that device.
        """
        return Batch(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True))


@dataclass(frozen=True)
class SampledUnits:
    """What the test set is a sample of: another test set would have other addresses, images or weeks.

    word: what the units are, in the plural.
    of_example: the unit of each example, `[n]`, integers from 0, in the order of `eval_batches("test")`.
    """

    word: str
    of_example: NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """One process's part of the data when several train together: part `rank` of `world` equal ones, 0 ≤ rank < world.

    Parts are contiguous: joined in the order of the ranks, they are the rows that a single process sees.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}: ranks are 0 to world - 1")

    def rows(self, batch_size: int) -> slice:
        """The rows of each global batch that this process trains on. All processes have equally many.

        Args:
            batch_size: examples in the global batch.

        Returns:
            `batch_size / world` consecutive rows.

        Raises:
            DataError: `world` does not divide `batch_size`.
        """
        if batch_size % self.world:
            least = -(-batch_size // self.world) * self.world
            raise DataError(
                f"a batch of {batch_size} examples does not divide among {self.world} processes; "
                f"choose a multiple of {self.world}: --set batch_size={least}"
            )
        return self.part(batch_size)

    def part(self, n: int) -> slice:
        """This process's part of n examples in order. Parts differ by at most one example, and may be empty.

        Args:
            n: examples in all.

        Returns:
            `n // world` consecutive examples, or one more.
        """
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)


WHOLE = Shard()  # of a single process: everything
