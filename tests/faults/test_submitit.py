"""The example of submitit under a stand-in for it: `checkpoint` comes as a signal, while the race is waited for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.slurm import ROOT

EXAMPLE = ROOT / "examples" / "slurm" / "sweep_submitit.py"
RACE = """
import signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(0))
print("began", flush=True)
time.sleep(60)
"""
JOB = """
import runpy, shlex, signal, sys, types
submitit = types.ModuleType("submitit")
submitit.helpers = types.SimpleNamespace(DelayedSubmission=lambda again, line: (type(again).__name__, line))
sys.modules["submitit"] = submitit
race = runpy.run_path(sys.argv[1])["Race"]()
line = shlex.join([sys.executable, "-c", sys.argv[2]])
def time_is_up(*_):
    assert race.checkpoint(line) == ("Race", line)
    print("submitted again", flush=True)
signal.signal(signal.SIGALRM, time_is_up)
signal.setitimer(signal.ITIMER_REAL, 2)
race(line)
print("ended", flush=True)
"""


def test_a_race_that_is_waited_for_is_submitted_again_once_it_has_ended(tmp_path: Path) -> None:
    words = [sys.executable, "-c", JOB, str(EXAMPLE), RACE]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split("\n") == ["began", "submitted again", "ended", ""]
