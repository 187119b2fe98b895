"""Starting the processes of a job on this machine, as `torchrun --standalone` does. Each runs the same command line."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from suite.errors import UserError
from suite.training.parallel.environment import Place, silence_pytorch
from tasks.storage.cores import cores


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
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    silence_pytorch()
    if threads is None:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // devices)))
    logging.disable(logging.CRITICAL)  # rank 0 reports what happened, in one line
    with tempfile.TemporaryDirectory(prefix="suite-job-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=secrets.token_hex(8),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "suite", *arguments)
        except ChildFailedError as failed:
            return exit_code(failed.failures)
        except SignalException as ended:
            return 128 + int(ended.sigval)
    return 0


def exit_code(failures: Mapping[int, Any]) -> int:
    """The exit code of a job.

    Args:
        failures: of its processes, by rank; `exitcode` is negative for a signal, `timestamp` says which came first.

    Returns:
        From 1 to 255.
    """
    failure = failures.get(0) or min(failures.values(), key=lambda each: each.timestamp)
    code = int(failure.exitcode)
    return 128 - code if code < 0 else code or 1
