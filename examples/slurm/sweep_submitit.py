"""The races of a plan as jobs that submitit sends to Slurm, or runs here (`pip install submitit`).

    suite sweep --task sotu --mixer softmax --mixer fem --plan plan.txt
    python examples/slurm/sweep_submitit.py plan.txt --partition gpu --gpus 1

A job that was preempted or reached its time limit is submitted again with the same command, which continues.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import submitit


class Race:
    """One line of the plan. submitit calls `checkpoint` shortly before the end of the job's time."""

    def __init__(self) -> None:
        """Nothing has started yet."""
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, line: str) -> None:
        """Carries out the race in a process of its own."""
        self.process = subprocess.Popen(shlex.split(line))
        if code := self.process.wait():
            raise subprocess.CalledProcessError(code, line)

    def checkpoint(self, line: str) -> submitit.helpers.DelayedSubmission:
        """What to submit next: the same line, once this race has written its checkpoints."""
        if self.process:
            self.process.send_signal(signal.SIGUSR2)  # Slurm has sent one too, and repeated ones are no second request
            # the call above is inside of wait(), whose lock a second one would wait for
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Race(), line)


def main() -> None:
    """Submits every line of the plan as a job, and prints the jobs' ids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="written by suite sweep --plan")
    parser.add_argument("--partition", default=None, help="of Slurm")
    parser.add_argument("--gpus", type=int, default=0, help="of each job")
    parser.add_argument("--cpus", type=int, default=8, help="of each job")
    parser.add_argument("--hours", type=float, default=8.0, help="the time limit of each job")
    parser.add_argument("--at-once", type=int, default=16, help="jobs in progress")
    parser.add_argument("--cluster", default=None, help="slurm or local; found out if left out")
    given = parser.parse_args()
    executor = submitit.AutoExecutor(folder="submitit-logs", cluster=given.cluster)
    executor.update_parameters(
        name="sweep",
        timeout_min=int(given.hours * 60),
        cpus_per_task=given.cpus,
        gpus_per_node=given.gpus,
        slurm_array_parallelism=given.at_once,
    )
    if given.partition:
        executor.update_parameters(slurm_partition=given.partition)
    for job in executor.map_array(Race(), given.plan.read_text("utf-8").splitlines()):
        sys.stdout.write(f"{job.job_id}\n")


if __name__ == "__main__":
    main()
