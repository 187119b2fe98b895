"""A third party checks a mixer with `backbones` and `kernels` alone: no suite, no tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import importlib.util, json, sys
assert not any(importlib.util.find_spec(name) for name in ("suite", "tasks", "tests"))
from backbones.contract.run import as_json, render, run_checks
results = run_checks("mine.py:MovingAverage", only=["config", "shape", "prefix", "step", "flops", "naive"])
render("mine.py:MovingAverage", results)
print(json.dumps(as_json("mine.py:MovingAverage", results)))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages that has `backbones` and `kernels` only."""
    packages = tmp_path / "site"
    packages.mkdir()
    for name in ("backbones", "kernels"):
        (packages / name).symlink_to(ROOT / name, target_is_directory=True)
    return packages


@pytest.mark.slow
def test_a_file_is_checked_where_the_suite_is_not_installed(tmp_path: Path, site: Path) -> None:
    shutil.copy(ROOT / "examples" / "moving_average.py", tmp_path / "mine.py")
    # -S, as an editable install of this repository would bring the suite back; its other packages are put on the path
    others = [path for path in sys.path if "site-packages" in path]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *others]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", "-c", CODE]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["holds"] is True
    assert document["counts"] == {"ok": 10, "not applicable": 2, "failed": 0}
