"""Where runs are, for commands that may have none to read: nothing else is imported."""

from __future__ import annotations

import os
from pathlib import Path

RECORD = "record.json"  # of a run, in its folder


def runs_home() -> Path:
    """The folder of all runs: `$SUITE_HOME`, or `runs/` in the current folder.

    Returns:
        An absolute path, which may not exist yet.
    """
    return Path(os.environ.get("SUITE_HOME") or "runs").absolute()


def has_records() -> bool:
    """Whether any run there has a record.

    Returns:
        True where there is one, damaged or not.
    """
    return any(runs_home().glob(f"*/{RECORD}"))
