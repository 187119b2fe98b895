"""Whether a record was made on this machine.

A record says what its author wrote into it. So the runs here are looked up too, and a machine of the same kind counts
as the same one: nothing in a record could distinguish them.
"""

from __future__ import annotations

from collections.abc import Container

from suite.records.schema import Hardware, Record

#: Relative differences of the memory that one machine reports from one start to the next.
MEMORY = 0.05


def made_here(made: Record, here: Hardware, own: Container[str]) -> str:
    """Why a record counts as made on this machine.

    Args:
        made: a record.
        here: this machine.
        own: ids of the runs in the runs folder.

    Returns:
        A phrase; empty where the record was made on another machine.
    """
    if made.id in own:
        return f"run {made.id} is in the runs folder of this machine"
    there = made.hardware
    if (there.processor, there.cores) != (here.processor, here.cores):
        return ""
    if abs(there.memory_bytes - here.memory_bytes) > MEMORY * here.memory_bytes:
        return ""
    return f"its runs were made on this machine or one like it ({here.processor}, {here.cores} cores)"
