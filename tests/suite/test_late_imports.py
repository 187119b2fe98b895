"""What commands import: each only what it needs, because imports are most of a short command's time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What takes a second or more to import.
HEAVY = ("torch", "torch._dynamo", "sympy", "torchvision", "timm", "mlflow", "pandas", "gluonts", "triton", "datasets")


def imported_by(code: str, folder: Path, **environment: str) -> set[str]:
    """Which heavy modules a fresh process has imported after the code."""
    code += f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]), file=sys.stderr)"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_TRACKING": "off", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def command(*words: str) -> str:
    """Code that runs a command of the command line as the console script does."""
    return (
        f"import sys\nfrom suite.cli import app\nsys.argv = {['suite', *words]!r}\n"
        "try:\n    app.main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )


@pytest.mark.parametrize("mixer", ["fem", "ssm", "hyperglu"])
@pytest.mark.slow
def test_the_budget_is_counted_without_the_compiler_and_timm(tmp_path, mixer):
    assert imported_by(command("budget", "--task", "sotu", "--mixer", mixer), tmp_path) <= {"torch"}


@pytest.mark.parametrize("task", ["sotu", "household-power", "mqar", "fashion-mnist"])
@pytest.mark.slow
def test_a_run_of_embedded_data_imports_neither_torchvision_nor_the_compiler(tmp_path, task):
    code = f"from tests.suite.tiny import tiny_arguments\nwords = tiny_arguments({task!r}, 'fem')\n"
    code += command().replace("['suite']", "['suite', *words]")
    assert imported_by(code, tmp_path, SUITE_HOME=str(tmp_path / "runs")) <= {"torch"}


@pytest.mark.parametrize(
    "words",
    [("list", "tasks"), ("list", "mixers", "--json"), ("leaderboard",), ("leaderboard", "--json"), ("--version",)],
)
@pytest.mark.slow
def test_lists_and_empty_boards_import_no_heavy_library(tmp_path, words):
    """The first list after a change of the code describes the mixers, and so imports PyTorch; later ones do not."""
    places = {"SUITE_HOME": str(tmp_path / "runs"), "SUITE_CACHE": str(tmp_path / "cache")}
    if words[0] == "list":
        imported_by(command(*words), tmp_path, **places)
    assert imported_by(command(*words), tmp_path, **places) == set()
