"""Architecture: imports run one way, heavy libraries load late, and the four packages are the suite's own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("suite", "tasks", "backbones", "kernels")
MAY_IMPORT = {"suite": {"tasks", "backbones"}, "tasks": set(), "backbones": {"kernels"}, "kernels": set()}
#: The suite times kernels too, in one place, and keeps answers by the rule for the compiled library.
EXCEPTIONS = {
    *((f"suite/bench/{name}.py", "kernels") for name in ("kernels", "layers", "naive", "on_gpu", "products")),
    *((f"suite/bench/{name}.py", "kernels") for name in ("report", "training")),
    ("suite/kept.py", "kernels"),
}
#: Inside a package a part imports only parts after it.
ORDER = {
    "suite": [
        "cli",
        "submissions",
        "sweeps",
        "planning",
        "bench",
        "language",
        "loading",
        "training",
        "boards",
        "tracking",
        "records",
        "models",
        "config",
        "statistics",
        "kept",
        "progress",
        "console",
        "safe_text",
        "errors",
    ],
    "tasks": [
        "contract",
        "registry",
        "text",
        "images",
        "series",
        "recall",
        "units",
        "embedded",
        "storage",
        "randomness",
        "base",
        "describing",
        "batches",
        "specs",
        "errors",
    ],
}
#: Parts of tasks that are domains: none imports another.
DOMAINS = ("text", "images", "series", "recall")
MAX_FILES = 16


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Those of a file, at its top or inside functions."""
    return [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports."""
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, "relative imports hide where a name comes from"
            yield node.module or ""


@cache
def all_imports() -> list[tuple[str, str]]:
    """(file relative to the root, imported module) of the four packages."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found += [(str(path.relative_to(ROOT)), name) for name in imported(path)]
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def module_imports() -> list[tuple[str, str]]:
    """(module, imported module) within the four packages; `from a import b` counts as `a.b` where that is a module."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    known = {module_name(path) for path in paths}
    found = []
    for path in paths:
        for node in import_statements(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names = sorted(inner & known) + ([node.module] if inner - known else [])
            found += [(module_name(path), name) for name in names if name in known and name != module_name(path)]
    return found


def folder_of(module: str) -> str:
    """The folder of a module. Modules directly in one of the four packages count by themselves; a part of suite or
    tasks counts as a whole, with its own subfolders.
    """
    parts = module.split(".")
    if parts[0] in ORDER:
        return ".".join(parts[:2])
    parent = module if ROOT.joinpath(*parts).is_dir() else module.rpartition(".")[0]
    return module if parent in PACKAGES else parent


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach = {node: set(after) for node, after in graph.items()}
    changed = True
    while changed:
        changed = False
        for after in reach.values():
            more = set().union(*(reach.get(n, set()) for n in after)) - after
            changed = changed or bool(more)
            after |= more
    groups = {frozenset(n for n in reach[node] if node in reach.get(n, set())) for node in reach if node in reach[node]}
    return sorted(sorted(group) for group in groups)


def test_imports_run_one_way():
    wrong = []
    for file, name in all_imports():
        here, there = file.split("/")[0], name.split(".")[0]
        if there in PACKAGES and there != here and there not in MAY_IMPORT[here] and (file, there) not in EXCEPTIONS:
            wrong.append(f"{file} imports {name}")
    assert not wrong


def part_of(module: str, package: str) -> str | None:
    """`boards` for `suite.boards.board`; None for the package itself and for other packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == package else None


@pytest.mark.parametrize("package", ORDER)
def test_parts_of_a_package_import_one_way(package):
    order, wrong = ORDER[package], []
    for file, name in module_imports():
        here, there = part_of(file, package), part_of(name, package)
        if here is None or there is None or here == there or here == "__main__":
            continue
        across_domains = here in DOMAINS and there in DOMAINS
        if here not in order or there not in order or order.index(here) > order.index(there) or across_domains:
            wrong.append(f"{file} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_import_circle_between_modules_or_between_folders():
    modules: dict[str, set[str]] = {}
    folders: dict[str, set[str]] = {}
    for here, there in module_imports():
        modules.setdefault(here, set()).add(there)
        if folder_of(here) != folder_of(there):
            folders.setdefault(folder_of(here), set()).add(folder_of(there))
    assert circles(modules) == []
    assert circles(folders) == []


def test_the_search_for_circles_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_than_16_files(package):
    counts = {path: len(list(path.glob("*.py"))) for path in [ROOT / package, *(ROOT / package).rglob("*/")]}
    assert not {str(path): n for path, n in counts.items() if n > MAX_FILES}


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
        "suite/tracking/catch_up.py",
        "suite/tracking/checks/database.py",
        "suite/tracking/checks/server.py",
        "suite/tracking/delivery.py",
        "suite/tracking/publishing.py",
    }
    assert users <= allowed
    commands = {file for file, name in all_imports() if name == "suite.tracking.publishing"}
    assert commands <= {
        "suite/boards/tracked/rebuild.py",
        "suite/tracking/ui/server.py",
        "suite/cli/commands/doctor.py",
    }


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


def test_backward_passes_refuse_a_second_derivative_by_the_suites_own_decorator():
    """PyTorch's `once_differentiable` loses terms in silence where only some inputs are differentiated."""
    assert [path for path, name in all_imports() if name == "torch.autograd.function"] == []
    assert not [path for path in (ROOT / "kernels").rglob("*.py") if "@once_differentiable" in path.read_text("utf-8")]
