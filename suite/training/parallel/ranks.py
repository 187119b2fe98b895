"""The processes that train one model together, as each of them sees the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from suite.records.schema import Parallel
from tasks.base import Shard

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from suite.training.parallel.lifeline import Lifeline

Strategy = Literal["ddp", "fsdp2"]
#: How long a rank leaves each rank before it to write the record of a lost run, and how many ranks at most.
TURN_S, MOST_TURNS = 2.0, 5
T = TypeVar("T")


@dataclass(eq=False)
class Ranks:
    """One process of a job, and how it reaches the others. By default the only one, which communicates with nobody.

    rank: of this process, 0 ≤ rank < world. Rank 0 leads: it decides what runs, and it alone writes.
    world: number of processes.
    strategy: what each of them holds: the whole model (ddp), or a part of every tensor (fsdp2).
    local_world: number of processes on this machine.
    control: for small values of any kind, on the CPU.
    lifeline: reports the end of another process.
    """

    rank: int = 0
    world: int = 1
    strategy: Strategy = "ddp"
    local_world: int = 1
    control: ProcessGroup | None = None
    lifeline: Lifeline | None = None
    announced: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's part of the data."""
        return Shard(self.rank, self.world)

    def recorded(self) -> Parallel | None:
        """How the model was trained, for the record; None for a single process."""
        return Parallel(world_size=self.world, strategy=self.strategy) if self.world > 1 else None

    def gather(self, value: T) -> list[T]:
        """Every rank's value. All ranks call it.

        Args:
            value: this rank's; it can be pickled.

        Returns:
            The values, in the order of the ranks.
        """
        if self.world == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value, group=self.control)
        return values

    def exchange(self, values: list[float]) -> list[list[float]]:
        """Every rank's numbers, in float64: faster than `gather`. All ranks call it.

        Args:
            values: this rank's; all ranks give equally many.

        Returns:
            A list per rank, in the order of the ranks.
        """
        if self.world == 1:
            return [values]
        from torch import distributed

        own = torch.tensor(values, dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(every, own, group=self.control)
        return [each.tolist() for each in every]

    def announce(self, value: T | None = None) -> T | None:
        """What rank 0 says, once in a job. All ranks call it.

        Args:
            value: rank 0's; the others pass None.

        Returns:
            Rank 0's value, on every rank.
        """
        self.announced = True
        if self.world == 1:
            return value
        from torch import distributed

        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def on_loss(self, last_words: Callable[[str], None]) -> None:
        """Sets what this process does last when another one was lost and it cannot end by itself.

        Args:
            last_words: called with the reason, in another thread.
        """
        if self.lifeline:
            self.lifeline.last_words = last_words

    def settle(self) -> None:
        """From now on this process needs no other one, and ends by itself."""
        if self.lifeline:
            self.lifeline.settle()

    @property
    def dismissed(self) -> bool:
        """Whether rank 0 has ended the job in good order."""
        return bool(self.lifeline and self.lifeline.dismissed)

    @property
    def reports_loss_after(self) -> float | None:
        """Whether this process writes the record of a run that a lost process ended, and how many seconds it leaves the
        ranks before it to do so, which it does not see. 0 for rank 0, and for rank 1 where rank 0 has ended without a
        message; None where rank 0 writes. Where two write nevertheless, their records say the same.
        """
        if self.leads:
            return 0.0
        if not (self.lifeline and self.lifeline.vanished(0)):
            return None
        return TURN_S * min(self.rank - 1, MOST_TURNS)

    def loss(self, wait_s: float = 0.0) -> str:
        """Why another process has ended early.

        Args:
            wait_s: how long to wait until that is known, in seconds.

        Returns:
            One line; an empty text where none has.
        """
        return self.lifeline.loss(wait_s) if self.lifeline else ""


ALONE = Ranks()
