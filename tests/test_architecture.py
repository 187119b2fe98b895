"""The house's order: imports run one way, heavy libraries load late, and the four packages are the suite's own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("suite", "tasks", "backbones", "kernels")
MAY_IMPORT = {"suite": {"tasks", "backbones"}, "tasks": set(), "backbones": {"kernels"}, "kernels": set()}
#: The suite times kernels too, in one place.
EXCEPTIONS = {("suite/bench/kernels.py", "kernels"), ("suite/bench/naive.py", "kernels")}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, at its top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            yield node.module or ""


def all_imports() -> list[tuple[str, str]]:
    """(file relative to the root, imported module) of the four packages."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found += [(str(path.relative_to(ROOT)), name) for name in imported(ast.parse(path.read_text("utf-8")))]
    return found


def test_imports_run_one_way():
    wrong = []
    for file, name in all_imports():
        here, there = file.split("/")[0], name.split(".")[0]
        if there in PACKAGES and there != here and there not in MAY_IMPORT[here] and (file, there) not in EXCEPTIONS:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def test_no_package_imports_the_tests_or_the_examples():
    assert not [pair for pair in all_imports() if pair[1].split(".")[0] in ("tests", "examples")]


def test_only_the_tracking_module_imports_mlflow():
    users = {file for file, name in all_imports() if name.split(".")[0] == "mlflow"}
    assert users == {"suite/tracking/store.py"}


def test_only_the_tracking_process_imports_the_tracking_module():
    """The training process must not import the module that loads MLflow, except in commands that talk to the store
    themselves.
    """
    users = {file for file, name in all_imports() if name == "suite.tracking.store"}
    allowed = {
        "suite/tracking/worker.py",
        "suite/tracking/delivery.py",
        "suite/tracking/ui_server.py",
        "suite/cli/doctor.py",
    }
    assert users <= allowed


def run_python(code: str, *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=variables, capture_output=True, text=True, timeout=120
    )


def test_help_loads_no_heavy_library(tmp_path):
    code = (
        "import sys\nfrom suite.cli import app\nsys.argv = ['suite', '--help']\n"
        "try:\n    app.main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'mlflow', 'timm', 'gluonts', 'pandas', 'numpy', 'pydantic', 'torchvision', "
        "'datasets'} & sys.modules.keys()\n"
        "print('heavy:', sorted(heavy))"
    )
    done = run_python(code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "Commands" in done.stdout
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", ["kernels", "tasks", "backbones"])
def test_another_projects_package_of_the_same_name_is_refused_in_one_line(tmp_path, name):
    foreign = tmp_path / "foreign"
    (foreign / name).mkdir(parents=True)
    (foreign / name / "__init__.py").write_text("raise SystemExit('the foreign package was imported')")
    done = run_python("import suite", cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(foreign), str(ROOT)]))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: mixer-suite needs its own package")
    assert repr(name) in last
    assert str(foreign / name) in last
    assert "PYTHONPATH" in last


def test_the_suites_own_packages_are_accepted_from_any_folder(tmp_path):
    done = run_python(
        "import suite, kernels, tasks, backbones; print(suite.__version__)", cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
