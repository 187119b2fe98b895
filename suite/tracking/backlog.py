"""Runs that the store does not have completely, because it was away when they ended or because they were killed. Each
has a mark in its folder, and the next command sends them from a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from suite.tracking.store_address import public_uri, tracking_uri

PENDING = "tracking.pending"
_RETRY_S = 60.0  # between attempts, however many commands are started


def add(run_dir: Path, uri: str) -> None:
    """Marks a run as not completely in that store."""
    with contextlib.suppress(OSError):  # a folder that is not writable: the journal itself reports it
        (run_dir / PENDING).write_text(public_uri(uri), "utf-8")


def make_due(run_dir: Path) -> None:
    """Lets the next command send the run, however soon it comes."""
    with contextlib.suppress(OSError):
        os.utime(run_dir / PENDING, (0, 0))


def remove(run_dir: Path) -> None:
    """Removes the mark of a run that is completely in its store."""
    with contextlib.suppress(OSError):
        (run_dir / PENDING).unlink(missing_ok=True)


def pending(home: Path) -> list[Path]:
    """The folders of runs that the current store lacks something of, also of runs in progress."""
    store, found = public_uri(tracking_uri(home)), list[Path]()
    for mark in sorted(home.glob(f"*/{PENDING}")):
        with contextlib.suppress(OSError, ValueError):
            if mark.read_text("utf-8") == store:
                found.append(mark.parent)
    return found


def send_in_background(home: Path) -> bool:
    """Starts the process that sends them; whether there is anything to send. Returns at once and never raises."""
    if os.environ.get("SUITE_TRACKING") == "off" or not any(map(_is_due, pending(home))):
        return False
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with contextlib.suppress(OSError):
        subprocess.Popen(
            [sys.executable, "-m", "suite.tracking.catch_up", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        ).returncode = 0  # nobody waits for it, on purpose
        return True
    return False


def _is_due(run_dir: Path) -> bool:
    """Whether a run is neither in progress nor was tried a moment ago. An attempt renews the mark."""
    from filelock import FileLock, Timeout

    from suite.tracking.journal import LOCK

    try:
        if time.time() - (run_dir / PENDING).stat().st_mtime < _RETRY_S:
            return False
        with FileLock(str(run_dir / LOCK), timeout=0):
            return True
    except (OSError, Timeout):
        return False
