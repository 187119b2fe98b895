"""Starting the processes of a job on this machine, and waiting for them. Each runs the same command line.

`torchrun --standalone` does so, too, with a store that every machine of the network can write to; this one is reached
on the loopback interface alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from suite.errors import UserError
from suite.training.parallel.environment import LOOPBACK, Place, silence_pytorch
from suite.training.signals import IMPATIENT, PATIENT
from tasks.storage.cores import cores

#: After the first process has failed, the others have this long to end by themselves; they notice within seconds.
END_S = 30.0
POLL_S = 0.05


def require_consistent(here: Place | None, devices: int | None, parallel: str | None) -> None:
    """Refuses options for several processes that would have no effect.

    Args:
        here: this process's place in a job; None for none.
        devices: the value of `--devices`.
        parallel: the value of `--parallel`.

    Raises:
        UserError: a rank was given another number than there are, or a single process a strategy.
    """
    if here is not None and devices not in (None, here.local_world):
        raise UserError(
            f"--devices {devices} within a job of {here.local_world} processes on this machine; leave it out: torchrun "
            "has started them"
        )
    if here is None and parallel is not None and (devices or 1) == 1:
        raise UserError(
            f"--parallel {parallel} needs several processes; add --devices 2, or start them with torchrun "
            "--nproc-per-node 2 -m suite run …"
        )


def launch(devices: int, arguments: Sequence[str], *, threads: int | None) -> int:
    """Runs a command in several processes and waits for them.

    Args:
        devices: number of processes, ≥ 2.
        arguments: of `suite`; every process gets them.
        threads: of each process, where the command line has them.

    Returns:
        Rank 0's exit code, or that of the process that failed first; 128 and the signal's number where one ended it.
    """
    silence_pytorch()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if threads is None:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // devices)))
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    store = TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        with _passing_on_signals(ranks):
            ranks.extend(_start(rank, devices, port, arguments) for rank in range(devices))
            return _wait(ranks)
    finally:
        _end(ranks)
        del store  # the processes have needed it until here


def _start(rank: int, devices: int, port: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "LOCAL_WORLD_SIZE": devices}
    store = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": port}
    served = {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}  # by this process
    environment = {**os.environ, **{name: str(value) for name, value in (place | store | served).items()}}
    # a group of its own: Ctrl-C reaches the rank once, through this process
    return subprocess.Popen([sys.executable, "-m", "suite", *arguments], env=environment, process_group=0)


@contextmanager
def _passing_on_signals(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Within the block signals reach all ranks, which stop after the same step. A second SIGINT or SIGTERM ends them at
    once, as it does a run of one process.
    """
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if number in IMPATIENT and any(before in IMPATIENT for before in received):
            number = signal.SIGKILL
        received.append(number)
        for rank in ranks:
            rank.send_signal(number)

    chosen = [n for n in (*IMPATIENT, *PATIENT) if n in IMPATIENT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit code of the job, once all ranks have ended."""
    failed: list[tuple[int, int]] = []
    end = float("inf")
    running = dict(enumerate(ranks))
    while running and time.monotonic() < end:
        for number in [number for number, rank in running.items() if rank.poll() is not None]:
            code = running.pop(number).returncode
            if code:
                failed.append((number, code))
                end = min(end, time.monotonic() + END_S)
        time.sleep(POLL_S)
    return exit_code(failed)


def exit_code(failed: Sequence[tuple[int, int]]) -> int:
    """The exit code of a job.

    Args:
        failed: rank and exit code of each process that failed, the first one first; codes of signals are negative.

    Returns:
        From 0 to 255: rank 0's, which reports the run, or that of the first process.
    """
    if not failed:
        return 0
    code = dict(failed).get(0, failed[0][1])
    return 128 - code if code < 0 else code


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends the processes that have not ended, with those that load their data."""
    for rank in ranks:
        if rank.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
            rank.wait()
