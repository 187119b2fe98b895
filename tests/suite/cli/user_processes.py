"""The command line as a user runs it: a separate process outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "moving_average.py"


def suite_process(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a separate process, in a user's working directory outside the repository."""
    folder.mkdir(exist_ok=True)
    variables = {
        **os.environ,
        "SUITE_HOME": str(folder / "runs"),
        "SUITE_TRACKING": "off",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH", ""), str(ROOT)]))
    return subprocess.run(
        [sys.executable, "-m", "suite", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=500,
    )
