"""Mixers in installed packages: found by the entry-point group `suite.mixers`; invalid entry points are explained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backbones.mixers import registry
from backbones.mixers.errors import MixerError
from tests.suite.cli.user_processes import EXAMPLE, suite_process
from tests.suite.tiny import tiny_arguments

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
    """A distribution with one valid mixer and four invalid entry points."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "averaging_mixers.py").write_text(EXAMPLE.read_text("utf-8"))
    (folder / "averaging_mixers_broken.py").write_text("raise RuntimeError('a driver\\nis missing')\n")
    return folder


def write_installed(folder: Path, name: str, version: str, entries: str) -> Path:
    """The metadata of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[suite.mixers]\n{entries}\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The distribution above, as if installed, for this process."""
    folder = write_installed(write_project(tmp_path / "site"), "averaging-mixers", "1.2", ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    registry._entries.cache_clear()
    yield folder
    registry._entries.cache_clear()
    for name in ("averaging_mixers", "averaging_mixers_broken"):
        sys.modules.pop(name, None)


#: By name of the entry point: what its error must contain.
REASONS = {
    "broken": [
        "'broken'",
        "averaging-mixers 1.2",
        "averaging_mixers_broken:Broken",
        "RuntimeError: a driver is missing",
    ],
    "misdirected": ["'averaging_mixers'", "'Nothing'"],
    "no mixer": ["backbones.mixers.base.Mixer"],
    "fem": ["'fem'", "mixer-suite", "averaging-mixers 1.2", "uninstall"],
}


def missing_parts(name: str, message: str) -> list[str]:
    return [part for part in REASONS[name] if part not in message]


def test_packages_are_listed_with_their_origin_or_why_they_do_not_load(suite, installed):
    ended = suite("list", "mixers", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(ended.out)}
    assert len(rows) == len(json.loads(ended.out))
    good = rows["averaging"]
    assert (good["origin"], good["available"], good["reason"]) == ("averaging-mixers 1.2", True, "")
    assert good["options"] == ["causal", "heads", "width"]
    assert rows["softmax"]["origin"] == "built-in"
    for name in REASONS:
        assert rows[name]["available"] is False
        assert missing_parts(name, rows[name]["reason"]) == []
        assert "\n" not in rows[name]["reason"]
    table = suite("list", "mixers")
    assert table.code == 0
    [line] = [line for line in table.out.splitlines() if line.startswith("not available here: broken: ")]
    assert line.endswith("a driver is missing")


@pytest.mark.parametrize("name", REASONS)
def test_an_invalid_entry_point_is_one_line_and_others_still_work(suite, installed, name):
    for arguments in (("check", name), ("budget", "--task", "sotu", "--mixer", name)):
        ended = suite(*arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert missing_parts(name, ended.err) == []
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


def test_a_package_that_also_registers_its_mixer_keeps_its_origin(installed):
    head = "class MovingAverage(Mixer)"
    registered = f"from backbones.mixers.registry import register\n\n@register('averaging')\n{head}"
    (installed / "averaging_mixers.py").write_text(EXAMPLE.read_text("utf-8").replace(head, registered))
    try:
        assert registry.get("averaging") is registry.get("averaging")
        assert registry.origin("averaging") == "averaging-mixers 1.2"
    finally:
        registry._registered.pop("averaging")


@pytest.mark.slow
def test_a_package_installed_by_pip_is_found_checked_and_run(tmp_path):
    project, site = write_project(tmp_path / "project"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, *offline, str(project)], check=True, capture_output=True, timeout=300)
    path = {"PYTHONPATH": str(site)}
    listed = suite_process(tmp_path, "list", "mixers", "--json", **path)
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["averaging"]["origin"] == "averaging-mixers 1.2"
    assert missing_parts("broken", rows["broken"]["reason"]) == []
    checked = suite_process(tmp_path, "check", "averaging", "--json", **path)
    assert (checked.returncode, json.loads(checked.stdout)["holds"]) == (0, True)
    done = suite_process(tmp_path, *tiny_arguments("fashion-mnist", "averaging"), "--json", **path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["code"]["mixer_origin"] == "averaging-mixers 1.2"
