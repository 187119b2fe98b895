"""The identity of a run's process as tags, so that a later process can check whether it is still alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import psutil

HOST_TAG, PID_TAG, START_TAG = "suite.host", "suite.pid", "suite.pid_start"
_START_TOLERANCE_S = 2.0  # two readings of a process's start time may differ by this much


def process_tags() -> dict[str, str]:
    """The tags that identify this process."""
    return {
        HOST_TAG: socket.gethostname(),
        PID_TAG: str(os.getpid()),
        START_TAG: f"{psutil.Process().create_time():.2f}",
    }


def may_be_alive(tags: Mapping[str, str]) -> bool:
    """Whether a run must be left to its process: that is alive here, or was started on another machine or in another
    container, where nothing can be known of it.
    """
    return tags.get(HOST_TAG, socket.gethostname()) != socket.gethostname() or is_alive(tags)


def is_alive(tags: Mapping[str, str]) -> bool:
    """True if the process with these tags runs on this machine. Its start time is compared too, as process ids are
    reused.
    """
    try:
        process = psutil.Process(int(tags[PID_TAG]))
        same = abs(process.create_time() - float(tags[START_TAG])) < _START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, ValueError, psutil.NoSuchProcess):
        return False
    except psutil.AccessDenied:
        return True
