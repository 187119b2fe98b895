"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

#: The limit of a container's processor time: "quota period" in microseconds (cgroup v2), or the two in files (v1).
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def cores() -> int:
    """The processors of this process: those it may run on (`taskset`, Slurm), no more than its container's limit.

    Returns:
        At least 1; a limit of 1.5 processors counts as 1, because a second thread would mostly wait.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(there, _limit())))


def _limit() -> float:
    try:
        if _QUOTA.exists():
            quota, period = _QUOTA.read_text("ascii").split()
        else:
            quota, period = (path.read_text("ascii").strip() for path in _QUOTA_V1)
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else math.inf
    except (OSError, ValueError):  # no limit is written as "max" or -1, or there are no control groups
        return math.inf
