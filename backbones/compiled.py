"""Whether the compiled kernels are built for this machine, and how their threads wait, without importing PyTorch."""

from __future__ import annotations

import os
import subprocess

from kernels.cpu import build
from kernels.cpu.build import OFF, SWITCH, UnavailableError
from kernels.cpu.process import trusted
from kernels.cpu.process.waiting import is_brief, rounds

__all__ = ["is_brief", "rounds", "state"]


def state() -> str:
    """What a run on a CPU would compute with.

    Returns:
        `built`, `not built yet: …`, `off …`, or `none: …` with the reason.
    """
    if os.environ.get(SWITCH, "on").lower() in OFF:
        return f"off ({SWITCH})"
    try:
        target = trusted.folder() / f"kernels-{build.key(build.compiler())}.so"
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        return f"none: {error}"
    return "built" if not trusted.fault(target) else "not built yet: the first run compiles them"
