"""What torchrun gives each process that it starts. Nothing here imports PyTorch."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass

from suite.errors import UserError

LOOPBACK = "127.0.0.1"
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Set once the processes of the job have found each other.
HAVE_MET = threading.Event()


class MachineError(UserError):
    """A user's error that all processes of a machine find."""


@dataclass(frozen=True)
class Place:
    """A process's place in its job.

    rank, world: among all processes.
    local_rank, local_world: among those of this machine.
    host: of rank 0.
    one_machine: whether all processes are on this machine.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    host: str
    one_machine: bool = True


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
    if world == 1:
        return None
    one_machine = local_world == world and bool(given["LOCAL_WORLD_SIZE"])
    return Place(
        rank, world, local_rank, local_world, LOOPBACK if one_machine else os.environ["MASTER_ADDR"], one_machine
    )


def launched() -> Place | None:
    """This process's place, where torchrun or `suite run --devices` has started it: schedulers of clusters set the same
    variables for a whole shell.
    """
    if not {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"} & set(os.environ):
        return None
    try:
        return place()
    except UserError:
        return None


def require_alone(command: str) -> None:
    """Refuses a command that every process of a job would carry out by itself.

    Args:
        command: its name.

    Raises:
        UserError: this process is one of several that torchrun started.
    """
    here = launched()
    if here is not None:
        raise UserError(
            f"suite {command} would run {here.world} times, once in each process of torchrun; start it without "
            "torchrun (which is for suite run), or unset RANK"
        )


def reports(error: Exception) -> bool:
    """Whether this process prints an error. Before the processes of a job have found each other, they refuse the same
    options, and the first one of a machine prints that.

    Args:
        error: what ends the command.

    Returns:
        False for the other processes of the machine.
    """
    own = HAVE_MET.is_set() or isinstance(error, (OSError, MemoryError))
    if own and not isinstance(error, MachineError):
        return True
    here = launched()
    return here is None or here.local_rank == 0


def silence_pytorch() -> None:
    """PyTorch's compiled parts print their errors alone, not warnings from every process. They read it once, when
    PyTorch is imported.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def keep_on_this_machine() -> None:
    """Processes of one machine exchange tensors on its loopback interface, which no other machine reaches, unless
    another interface is chosen.
    """
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if names:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])


def agent() -> int | None:
    """The id of torchrun, or of `suite run --devices`, which started this process and waits for it; None: neither."""
    return os.getppid() if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None


def device_of(name: str, here: Place, gpus: int) -> str:
    """The device of one process.

    Args:
        name: as the user gave it: `auto`, `cpu` or `cuda`.
        here: its place.
        gpus: of this machine.

    Returns:
        `cpu`, or the GPU with the process's number on this machine.

    Raises:
        MachineError: the machine has too few GPUs, or one of them was named.
    """
    if name == "cpu" or (name == "auto" and not gpus):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise MachineError(
            f"--device {name}: each of {here.world} processes uses its own GPU; give --device auto, cuda or cpu (to "
            "choose GPUs, set CUDA_VISIBLE_DEVICES)"
        )
    if here.local_world > gpus:
        raise MachineError(
            f"{here.local_world} processes on this machine need as many GPUs, it has {gpus}; start {gpus or 1}, or "
            "give --device cpu"
        )
    return f"cuda:{here.local_rank}"
