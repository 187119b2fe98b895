"""A batch in parts that are computed one after another, so that it needs less memory."""

from __future__ import annotations

from tasks.base import Batch, Shard


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """The rows of a batch in parts of nearly the same size.

    Args:
        batch: to be divided.
        count: number of parts, at most its rows.

    Returns:
        The parts, in the order of the rows.
    """
    if count == 1:
        return [batch]
    rows = [Shard(i, count).part(batch.size) for i in range(count)]
    return [Batch(batch.inputs[some], batch.targets[some]) for some in rows]
