"""A few of the kills of `kill9`, in each domain."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_runs_killed_at_random_moments_and_resumed_equal_the_whole_ones(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SUITE_TRACKING": "off"}
    command = [sys.executable, "-m", "tests.faults.kill9", "--times", "1", "--seed", "5"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(" equal")[0] for line in done.stdout.splitlines()] == [
        f"{domain}: 1 of 1" for domain in ("text", "images", "series", "recall")
    ]
