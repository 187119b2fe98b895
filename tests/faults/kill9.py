"""`python -m tests.faults.kill9 --times 20`: kills runs at random moments and resumes them with `--resume auto`.

For a small run of each domain it trains the whole run once. Then, `--times` times, it starts the same command line in a
process of its own, kills that with SIGKILL at a random moment between its start and its end, and repeats the command
line with `--resume auto` until it ends. The record must equal the whole run's bit for bit. Exit code 1 if one does not.

The processes are forked from this one, which has imported everything but computed nothing: starting Python and PyTorch
would take longer than the runs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from suite.cli import app
from suite.records import record
from suite.records.schema import Record
from suite.training import checkpoint, run  # noqa: F401 (imported before the processes are forked)

RANDOM = ("dropout=0.2", "drop_path=0.3", "ema=0.9")
SHAPE = ("dim=32", "model.heads=2", "depth=2", "ffn_width=88", "batch_size=8", "steps=40", "evals=20")
DOMAINS = {
    "text": ("sotu", (*RANDOM, "length=16", "valid_limit=16", "test_limit=16")),
    "images": ("fashion-mnist", (*RANDOM, "patch=14", "eval_batch_size=500")),
    "series": ("household-power", (*RANDOM, "horizon=8", "stride=16", "valid_limit=16", "test_limit=16")),
    "recall": ("mqar", ("dropout=0.2", "drop_path=0.3", "ema=0.9")),
}


@dataclass
class Tally:
    """What happened to the killed runs of a domain."""

    equal: int = 0
    from_scratch: int = 0
    resumed: int = 0
    ended_before: int = 0
    different: list[str] = field(default_factory=list)


def arguments(domain: str, mixer: str) -> list[str]:
    task, sets = DOMAINS[domain]
    options = [part for value in (*SHAPE, *sets) for part in ("--set", value)]
    return ["run", "--task", task, "--mixer", mixer, "--scale", "board", "--device", "cpu", *options]


def started(home: Path, command: list[str]) -> int:
    """The id of a process that runs the command line."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.environ |= {"SUITE_HOME": str(home)}
        log = os.open(home.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["suite", *command]
        app.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(99)


def exit_code(pid: int) -> int:
    """Waits for a process; the negative signal for one that was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def only_record(home: Path) -> Record:
    [path] = home.glob(f"*/{record.NAME}")
    return record.read(path)


def equal(one: Record, two: Record) -> bool:
    return record.same_figures(one, two) and one.loss_trace == two.loss_trace and one.selection == two.selection


def killed_and_resumed(home: Path, command: list[str], after_s: float) -> tuple[Record, bool]:
    """The record of a run that was killed after some seconds and resumed, and whether it had ended before."""
    pid = started(home, command)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    ended = exit_code(pid) == 0
    for _ in range(3):
        code = exit_code(started(home, [*command[:1], "--resume", "auto", *command[1:]]))
        if code == 0:
            return only_record(home), ended
    raise RuntimeError(f"exit code {code}: {home.with_suffix('.log').read_text()[-2000:]}")


def attack(domain: str, mixer: str, times: int, chance: random.Random, folder: Path) -> Tally:
    command, tally = arguments(domain, mixer), Tally()
    whole_home = folder / f"{domain}-whole"
    whole_home.mkdir()
    began = time.monotonic()
    if exit_code(started(whole_home, command)):
        raise RuntimeError(whole_home.with_suffix(".log").read_text()[-2000:])
    took, whole = time.monotonic() - began, only_record(whole_home)
    for number in range(times):
        home, after_s = folder / f"{domain}-{number}", chance.uniform(0, took)
        home.mkdir()
        made, ended = killed_and_resumed(home, command, after_s)
        tally.ended_before += ended
        tally.resumed += bool(made.resumed_at)
        tally.from_scratch += not made.resumed_at and not ended
        if equal(made, whole):
            tally.equal += 1
        else:
            tally.different.append(f"{home} (killed after {after_s:.2f} s, resumed at {made.resumed_at})")
    return tally


def main(report: Callable[[str], object]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--times", type=int, default=20, help="kills per domain")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--mixer", default="fem")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    os.environ |= {"SUITE_TRACKING": os.environ.get("SUITE_TRACKING", "off"), "OMP_NUM_THREADS": "1"}
    chance, failed = random.Random(given.seed), 0
    folder = Path(tempfile.mkdtemp(prefix="kill9-"))
    for domain in given.domains:
        tally = attack(domain, given.mixer, given.times, chance, folder)
        failed += given.times - tally.equal
        report(
            f"{domain}: {tally.equal} of {given.times} equal bit for bit ({tally.resumed} resumed at a checkpoint, "
            f"{tally.from_scratch} from scratch, {tally.ended_before} had ended)"
        )
        for line in tally.different:
            report(f"  different: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(lambda line: sys.stdout.write(f"{line}\n") and sys.stdout.flush()))
