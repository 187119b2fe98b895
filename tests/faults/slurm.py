"""`python -m tests.faults.slurm SCRIPT ARGUMENTS…`: a stand-in for Slurm that runs a batch script and preempts it.

It starts the script as `sbatch` does, with programs named `srun`, `scontrol` and `suite` on its path, and carries out a
list of events: each sends signals to the job's step once that has written another checkpoint, waits for the grace
period, and kills what is left. A requeued job starts again with the same command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
POLL_S, DEADLINE_S = 0.005, 300.0
PROGRAMS = {
    "srun": '#!/bin/sh\necho $$ > "$FAKE_SLURM/step.new" && mv "$FAKE_SLURM/step.new" "$FAKE_SLURM/step"\nexec "$@"\n',
    "scontrol": '#!/bin/sh\n[ "$1" = requeue ] && [ "$2" = "$SLURM_JOB_ID" ] && touch "$FAKE_SLURM/requeue"\n',
    "suite": f'#!/bin/sh\nexec "{sys.executable}" -m suite "$@"\n',
}


@dataclass(frozen=True)
class Event:
    """What happens to a job.

    signals: sent to all processes of its step, as Slurm does, one after the other; None is the signal of the script's
        `--signal` line.
    grace_s: seconds from the first signal to SIGKILL.
    requeued: whether the scheduler requeues the job; otherwise the job has to do it with `scontrol requeue`.
    """

    signals: tuple[signal.Signals | None, ...]
    grace_s: float
    requeued: bool


PREEMPTED = Event((signal.SIGCONT, signal.SIGTERM), 60, requeued=True)
TIME_LIMIT = Event((None,), 60, requeued=False)
BOTH = Event((None, signal.SIGCONT, signal.SIGTERM), 60, requeued=True)
NODE_LOST = Event((), 0, requeued=True)
CANCELLED = Event((signal.SIGCONT, signal.SIGTERM), 60, requeued=False)


@dataclass(frozen=True)
class Attempt:
    """One start of the job: its exit code, negative where SIGKILL ended it, and seconds from the signal to the end."""

    code: int
    ended_after_s: float


def options(script: Path) -> dict[str, str]:
    """The `#SBATCH` options of a script; those without a value have an empty one."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", script.read_text("utf-8"), re.MULTILINE))


def warning(script: Path) -> tuple[bool, signal.Signals, int]:
    """Whether the signal of `--signal` goes to the shell alone, the signal, and how many seconds before the end."""
    found = re.fullmatch(r"(B:)?([A-Z0-9]+)@(\d+)", options(script)["signal"])
    assert found, options(script)["signal"]
    return bool(found[1]), signal.Signals[f"SIG{found[2]}"], int(found[3])


class Job:
    """A submitted batch script.

    script: its path.
    arguments: of the script.
    runs: the runs folder, whose checkpoints decide when events happen.
    """

    def __init__(self, script: Path, arguments: Sequence[str], runs: Path, folder: Path) -> None:
        self.script, self.arguments, self.runs, self.folder = script, arguments, runs, folder
        for name, text in PROGRAMS.items():
            program = folder / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)

    def run(self, events: Sequence[Event]) -> list[Attempt]:
        """Starts the job again and again, an event in each start, until it ends by itself and isn't requeued."""
        attempts: list[Attempt] = []
        for event in (*events, None):
            attempts.append(self._attempt(len(attempts), event))
            asked = self.folder / "requeue"
            if event is None or not (event.requeued or asked.exists()):
                return attempts
            assert "requeue" in options(self.script), "the script has no line #SBATCH --requeue"
            asked.unlink(missing_ok=True)
        return attempts

    def _attempt(self, restarts: int, event: Event | None) -> Attempt:
        (self.folder / "step").unlink(missing_ok=True)
        before = self._checkpoints()
        with open(self.folder / "job.log", "a") as log:
            process = subprocess.Popen(
                ["bash", str(self.script), *self.arguments],
                env=self._environment(restarts),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = time.monotonic()
        try:
            if event is not None:
                self._wait_for_a_checkpoint(process, before)
                began = time.monotonic()
                self._carry_out(event, process)
            return Attempt(process.wait(DEADLINE_S), time.monotonic() - began)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _carry_out(self, event: Event, process: subprocess.Popen[bytes]) -> None:
        to_shell, named, _ = warning(self.script)
        step = psutil.Process(int((self.folder / "step").read_text()))
        of_step = [each.pid for each in (step, *step.children(recursive=True))]
        for number in event.signals:
            for receiver in [process.pid] if number is None and to_shell else of_step:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(receiver, number or named)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(event.grace_s)
            return
        os.killpg(process.pid, signal.SIGKILL)

    def _environment(self, restarts: int) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "FAKE_SLURM": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "SUITE_HOME": str(self.runs),
            "SLURM_JOB_ID": "4711",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_CPUS_PER_TASK": "1",
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }

    def _checkpoints(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.runs.glob("*/checkpoint.pt")}

    def _wait_for_a_checkpoint(self, process: subprocess.Popen[bytes], before: dict[Path, int]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self._checkpoints() == before or not (self.folder / "step").exists():
            assert process.poll() is None, f"the job ended before its event: {(self.folder / 'job.log').read_text()}"
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(POLL_S)


def main() -> None:
    """Preempts a job three times, as the tests do, and prints how each start ended."""
    script, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(script), arguments, Path(folder) / "runs", Path(folder))
        for attempt in job.run([PREEMPTED, TIME_LIMIT, NODE_LOST]):
            sys.stdout.write(f"exit code {attempt.code}, {attempt.ended_after_s:.2f} s\n")
        sys.stdout.write((Path(folder) / "job.log").read_text())


if __name__ == "__main__":
    main()
