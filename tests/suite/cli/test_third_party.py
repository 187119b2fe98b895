"""Mixers of others, as their authors and users handle them: a file of one's own, and an installed package with an entry
point.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from backbones.mixers import registry
from backbones.mixers.errors import MixerError
from backbones.mixers.fla import mixer
from suite.records import record
from tests.suite.tiny import tiny_arguments

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "moving_average.py"
NAMED = f"{EXAMPLE}:MovingAverage"


def suite_process(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, started in `folder`: a user's working directory, not the repository."""
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


# --- A file of one's own
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_passes_the_contract(tmp_path):
    done = suite_process(tmp_path / "elsewhere", "check", NAMED, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["mixer"] == NAMED
    assert shown["holds"] is True
    assert shown["counts"]["failed"] == 0
    held = {(r["check"], r["causal"]) for r in shown["results"] if r["status"] == "ok"}
    assert held >= {
        ("prefix", True),
        ("step", True),
        ("reach", False),
        ("padding", True),
        ("padding", False),
        ("parameters", False),
    }


@pytest.mark.slow
def test_the_example_is_sized_run_and_ranked_like_any_mixer(tmp_path):
    folder = tmp_path / "elsewhere"
    budget = suite_process(
        folder, "budget", "--task", "household-power", "--mixer", NAMED, "--scale", "board", "--json"
    )
    assert (budget.returncode, budget.stderr) == (0, "")
    certificate = json.loads(budget.stdout)
    assert certificate["matched"] is True
    assert certificate["mixer_options"]["width"] > 0
    done = suite_process(folder, *tiny_arguments("sotu", NAMED, "dim=64"), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    [path] = (folder / "runs").glob("*/record.json")
    assert record.read(path).model_dump(mode="json", by_alias=True) == made
    assert made["status"] == "finished"
    assert made["mixer"] == NAMED
    assert made["code"]["mixer_origin"] == registry.origin(NAMED)
    assert made["code"]["mixer_origin"].startswith("moving_average.py@")
    assert path.parent.name.split("-")[2:4] == ["sotu", "MovingAverage"]
    board = json.loads(suite_process(folder, "leaderboard", "--json").stdout)
    assert [row["mixer"] for b in board for row in b["rows"]] == ["moving_average.py:MovingAverage"]


@pytest.mark.slow
def test_a_users_broken_mixer_fails_the_check_with_exit_code_1_and_the_input_that_shows_it(tmp_path):
    text = EXAMPLE.read_text("utf-8")
    assert text.count("parameters=3 * E * dim + E") == 1
    (tmp_path / "mine.py").write_text(text.replace("parameters=3 * E * dim + E", "parameters=3 * E * dim"))
    done = suite_process(tmp_path, "check", "mine.py:MovingAverage", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    shown = json.loads(done.stdout)
    assert shown["holds"] is False
    failed = [r for r in shown["results"] if r["status"] == "failed"]
    assert {r["check"] for r in failed} == {"parameters"}
    assert failed[0]["setting"]["counted"] > failed[0]["setting"]["stated"]


FILES = {
    "syntax error": ("class Mine(:\n", "Mine", "cannot be loaded: SyntaxError"),
    "missing import": (
        "import nothing_of_that_name\n",
        "Mine",
        "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    ),
    "error of several lines": ("raise ValueError('one\\ntwo')\n", "Mine", "cannot be loaded: ValueError: one two"),
    "missing class": ("x = 1\n", "Mine", "has no class 'Mine' and no other mixer"),
    "misspelt class": (None, "MovingAvrage", "has no class 'MovingAvrage'; did you mean 'MovingAverage'?"),
    "another class": (None, "Zzz", "has no class 'Zzz' (mixers there: MovingAverage)"),
    "not a mixer": ("class Mine: ...\n", "Mine", "is not a subclass of backbones.mixers.base.Mixer"),
    "not a class": ("Mine = 3\n", "Mine", "is not a subclass of backbones.mixers.base.Mixer"),
    "unfinished": (
        "from backbones.mixers.base import Mixer\nclass Mine(Mixer): ...\n",
        "Mine",
        "lacks candidates, cost, forward",
    ),
    "without a config": (
        "from examples.moving_average import MovingAverage\nclass Mine(MovingAverage):\n    Config = None\n",
        "Mine",
        "lacks Config",
    ),
    "a name that is taken": (
        "from backbones.mixers.fem.fem import Fem\nfrom backbones.mixers.registry import register\n"
        "@register('fem')\nclass Mine(Fem): ...\n",
        "Mine",
        "two mixers are called 'fem'",
    ),
}


@pytest.mark.parametrize("command", ["check", "budget", "run"])
@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_users_file_is_one_line_and_exit_code_2(suite, runs, tmp_path, monkeypatch, name, command):
    text, class_name, said = FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text("utf-8") if text is None else text)
    mixer = f"mine.py:{class_name}"
    ended = suite("check", mixer) if command == "check" else suite(command, "--task", "sotu", "--mixer", mixer)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err
    assert "mine.py" in ended.err
    assert not runs.exists()


def test_a_file_that_was_mended_is_read_anew_after_a_failure(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Mine(:\n")
    with pytest.raises(MixerError, match="SyntaxError"):
        registry.get(f"{path}:MovingAverage")
    path.write_text(EXAMPLE.read_text("utf-8"))
    assert registry.get(f"{path}:MovingAverage").__name__ == "MovingAverage"


def commands_told() -> list[list[str]]:
    """The `suite` commands that CONTRIBUTING.md tells mixer authors to type."""
    told = re.findall(r"^suite (.+)$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    return [
        line.split() for line in told if line != "check moving-average"
    ]  # a name that only their own package brings


@pytest.mark.slow
def test_the_commands_told_to_authors_work_as_written(suite, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = []
    for arguments in commands_told():
        few = tiny_arguments("sotu", "", "dim=64")[7:] if arguments[0] == "run" else []  # the same command, fewer steps
        ended = suite(*arguments, *few)
        assert (ended.code, "error" in ended.err) == (0, False), (arguments, ended.err)
        done.append((arguments[0], "MovingAverage" in ended.out or "moving-average" in ended.out))
    assert [name for name, _ in done] == ["check", "budget", "run", "leaderboard", "list"]
    assert all(shown for name, shown in done if name != "list")


# --- An installed package
# -------------------------------------------------------------------------------------------------------------

ENTRIES = """
averaging = averaging_mixers:MovingAverage
broken = averaging_mixers_broken:Broken
misdirected = averaging_mixers:Nothing
no mixer = averaging_mixers:nn
fem = averaging_mixers:MovingAverage
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "averaging-mixers"
version = "1.2"
[project.entry-points."suite.mixers"]
ENTRIES
[tool.setuptools]
py-modules = ["averaging_mixers", "averaging_mixers_broken"]
""".replace("ENTRIES", re.sub(r"(.+) = (.+)", r'"\1" = "\2"', ENTRIES))


def write_project(folder: Path) -> Path:
    """A distribution of one good mixer and four bad entries."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "averaging_mixers.py").write_text(EXAMPLE.read_text("utf-8"))
    (folder / "averaging_mixers_broken.py").write_text("raise RuntimeError('a driver\\nis missing')\n")
    return folder


def write_installed(folder: Path, name: str, version: str, entries: str) -> Path:
    """What an installer leaves of a distribution's metadata."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[suite.mixers]\n{entries}\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The distribution above as if installed, in this process."""
    folder = write_installed(write_project(tmp_path / "site"), "averaging-mixers", "1.2", ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    registry._entries.cache_clear()
    yield folder
    registry._entries.cache_clear()
    for name in ("averaging_mixers", "averaging_mixers_broken"):
        sys.modules.pop(name, None)


REASONS = {
    "broken": (
        "mixer 'broken' of averaging-mixers 1.2 (averaging_mixers_broken:Broken) cannot be loaded: "
        "RuntimeError: a driver is missing"
    ),
    "misdirected": "AttributeError: module 'averaging_mixers' has no attribute 'Nothing'",
    "no mixer": "is not a subclass of backbones.mixers.base.Mixer",
    "fem": (
        "mixer name 'fem' is claimed by mixer-suite itself and by averaging-mixers 1.2: uninstall "
        "a package, or rename its entry point"
    ),
}


def test_a_package_mixer_is_listed_with_its_origin_and_bad_entries_with_their_reason(suite, installed):
    ended = suite("list", "mixers", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(ended.out)}
    assert len(rows) == len(json.loads(ended.out))
    good = rows["averaging"]
    assert (good["origin"], good["available"], good["reason"]) == ("averaging-mixers 1.2", True, "")
    assert good["options"] == ["causal", "heads", "width"]
    assert rows["softmax"]["origin"] == "built-in"
    for name, reason in REASONS.items():
        assert rows[name]["available"] is False
        assert reason in rows[name]["reason"]
        assert "\n" not in rows[name]["reason"]
    table = suite("list", "mixers")
    assert table.code == 0
    [line] = [line for line in table.out.splitlines() if line.startswith("not available here: broken: ")]
    assert line.endswith("a driver is missing")


@pytest.mark.parametrize("name", REASONS)
def test_using_a_bad_entry_is_one_line_and_the_others_go_on(suite, installed, name):
    for arguments in (("check", name), ("budget", "--task", "sotu", "--mixer", name)):
        ended = suite(*arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert REASONS[name] in ended.err
    assert registry.get("softmax").__name__ == "Softmax"
    assert registry.get("averaging").__module__ == "averaging_mixers"


def test_a_name_that_two_packages_claim_is_refused(installed, tmp_path, monkeypatch):
    other = write_installed(tmp_path / "other", "rival", "0.3", "averaging = averaging_mixers:MovingAverage")
    monkeypatch.syspath_prepend(str(other))
    registry._entries.cache_clear()
    with pytest.raises(
        MixerError, match=r"'averaging' is claimed by .*(rival 0.3 and by averaging-mixers 1.2|averaging-mixers)"
    ):
        registry.get("averaging")


def test_a_package_that_also_registers_its_mixer_is_still_a_package(installed):
    head = "class MovingAverage(Mixer)"
    registered = f"from backbones.mixers.registry import register\n\n@register('averaging')\n{head}"
    (installed / "averaging_mixers.py").write_text(EXAMPLE.read_text("utf-8").replace(head, registered))
    try:
        assert registry.get("averaging") is registry.get("averaging")
        assert registry.origin("averaging") == "averaging-mixers 1.2"
    finally:
        registry._registered.pop("averaging")


# --- Layers of another library
# --------------------------------------------------------------------------------------------------------

TASK = ("--task", "sotu", "--mixer", "fla/gla")


@pytest.mark.parametrize("arguments", [("check", "fla/gla"), ("budget", *TASK), ("run", *TASK)], ids=lambda a: a[0])
def test_layers_whose_library_is_missing_say_what_to_install(suite, runs, monkeypatch, arguments):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(mixer, "version", missing)
    ended = suite(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.endswith("flash-linear-attention is not installed: pip install 'mixer-suite[fla]'\n")
    assert not runs.exists()
    row = next(row for row in json.loads(suite("list", "mixers", "--json").out) if row["name"] == "fla/gla")
    assert (row["available"], row["causal"], row["bidirectional"], row["domains"]) == (
        False,
        True,
        False,
        ["language", "recall"],
    )
    assert "mixer-suite[fla]" in row["reason"]


@pytest.mark.parametrize("arguments", [("check", "fla/gla"), ("run", *TASK, "--device", "cpu")], ids=lambda a: a[0])
def test_layers_that_need_a_gpu_say_so_before_anything_starts(suite, runs, monkeypatch, arguments):
    monkeypatch.setattr(mixer, "version", lambda name: "0.6.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = suite(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "mixer 'fla/gla' cannot run here: fla's kernels are Triton and need a GPU, 'cpu' was given" in ended.err
    assert not runs.exists()


@pytest.mark.slow
def test_a_package_that_pip_installed_is_found_checked_and_run(tmp_path):
    project, site = write_project(tmp_path / "project"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, *offline, str(project)], check=True, capture_output=True, timeout=300)
    path = {"PYTHONPATH": str(site)}
    listed = suite_process(tmp_path, "list", "mixers", "--json", **path)
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["averaging"]["origin"] == "averaging-mixers 1.2"
    assert REASONS["broken"] in rows["broken"]["reason"]
    checked = suite_process(tmp_path, "check", "averaging", "--json", **path)
    assert (checked.returncode, json.loads(checked.stdout)["holds"]) == (0, True)
    done = suite_process(tmp_path, *tiny_arguments("fashion-mnist", "averaging"), "--json", **path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["code"]["mixer_origin"] == "averaging-mixers 1.2"
