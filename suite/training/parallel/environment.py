"""What torchrun gives each process that it starts. Nothing here imports PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from suite.errors import UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A process's place in its job.

    rank, world: among all processes.
    local_rank, local_world: among those of this machine.
    host: of rank 0.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    host: str


def place() -> Place | None:
    """This process's place, as torchrun's environment variables give it.

    Returns:
        None for a process that trains alone.

    Raises:
        UserError: the variables contradict each other.
    """
    if any(name not in os.environ for name in NEEDED):
        return None
    given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    try:
        rank, world = int(given["RANK"]), int(given["WORLD_SIZE"])
        local_rank, local_world = int(given["LOCAL_RANK"] or rank), int(given["LOCAL_WORLD_SIZE"] or world)
    except ValueError:
        rank, world, local_rank, local_world = -1, 0, 0, 0
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world):
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(f"{shown}: these are no ranks of a job; start it with torchrun, or unset the variables")
    return Place(rank, world, local_rank, local_world, os.environ["MASTER_ADDR"]) if world > 1 else None


def silence_pytorch() -> None:
    """PyTorch's compiled parts print their errors alone, not warnings from every process. They read it once, when
    PyTorch is imported.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def device_of(name: str, here: Place, gpus: int) -> str:
    """The device of one process.

    Args:
        name: as the user gave it: `auto`, `cpu` or `cuda`.
        here: its place.
        gpus: of this machine.

    Returns:
        `cpu`, or the GPU with the process's number on this machine.

    Raises:
        UserError: the machine has too few GPUs, or one of them was named.
    """
    if name == "cpu" or (name == "auto" and not gpus):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UserError(
            f"--device {name}: each of {here.world} processes uses its own GPU; give --device auto, cuda or cpu (to "
            "choose GPUs, set CUDA_VISIBLE_DEVICES)"
        )
    if here.local_world > gpus:
        raise UserError(
            f"{here.local_world} processes on this machine need as many GPUs, it has {gpus}; start {gpus or 1}, or "
            "give --device cpu"
        )
    return f"cuda:{here.local_rank}"
