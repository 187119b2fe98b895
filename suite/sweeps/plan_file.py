"""The plan of a sweep as a file of commands, for schedulers that run one of them at a time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from suite.console import err
from suite.errors import UserError
from suite.sweeps.entrant import Entrant


def write_plan(path: Path, found: Sequence[Entrant], options: Sequence[str]) -> None:
    """Writes one line per race that has not ended; each line may run again, on any machine that shares the runs folder.

    Args:
        path: of the file.
        found: the races.
        options: command-line options of every line.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for each in found:
        if each.state().chosen is not None:
            continue
        rates = ",".join(repr(rate) for rate in each.race.rates)
        words = ["suite", "sweep", *each.given, "--seeds", _seeds(each.race.seeds), "--set", f"lr={rates}", *options]
        lines.append(shlex.join(words))
    try:
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    except OSError as error:
        raise UserError(f"--plan {str(path)[:80]!r} cannot be written: {error.strerror}") from None
    err.print(f"{len(lines)} races written to {path}", soft_wrap=True)


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:  # a single number is a number of seeds
        return f"{seeds[0]}-{seeds[0]}"
    return ",".join(str(seed) for seed in seeds)
