"""Reading a record executes nothing that it names, whatever it claims; resuming executes only what it recorded."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import tasks.registry
from backbones.mixers import registry
from suite.config.identity import digest
from suite.records import record, runs_folder
from suite.records.recorded import RecordedConfig
from suite.training import checkpoint
from tests.suite.records import edited
from tests.suite.tiny import tiny_arguments, tiny_config
from tests.test_architecture import ROOT

EVIL = """
from pathlib import Path
Path(MARKER).write_text("executed")
from backbones.mixers.fem.fem import FemSoftmax as X
"""
ENTRIES = "evil = evil_module:X\nfem = evil_module:X\nsoftmax = evil_module:X\nfashion-mnist = evil_module:X\n"
ORIGINS = ("built-in", "baseline", "evil-package 1.0", "unknown", "")


@cache
def sound_record() -> dict[str, Any]:
    return edited.plain(edited.full_record())


@cache
def sound_config() -> dict[str, Any]:
    return tiny_config("fashion-mnist", "fem").canonical()


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Iterator[Path]:
    """A Python file and an installed package that leave a marker when they are executed; the package also claims names
    of the suite.
    """
    sound_record(), sound_config()  # made before a package claims their names
    site = tmp_path / "site"
    info = site / "evil_package-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[suite.mixers]\n{ENTRIES}\n[suite.tasks]\n{ENTRIES}")
    source = EVIL.replace("MARKER", repr(str(tmp_path / "marker")))
    file = tmp_path / "evil.py"
    for path in (site / "evil_module.py", file):
        path.write_text(source)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    registry._entries.cache_clear()
    tasks.registry._entries.cache_clear()
    yield file
    registry._entries.cache_clear()
    tasks.registry._entries.cache_clear()
    sys.modules.pop("evil_module", None)


def executed(tmp_path: Path) -> bool:
    return (tmp_path / "marker").exists()


def claims(evil: Path) -> Iterator[dict[str, object]]:
    """Sound records but for a task or a mixer that is foreign code, under every origin, all hashes computed again."""
    sound = sound_record()
    content_hash = sha256(evil.read_bytes()).hexdigest()[:12]
    for kind in ("mixer", "task"):
        for name in (f"{evil}:X", "evil.py:X", "evil", "evil_module:X"):
            for origin in (*ORIGINS, f"evil.py@{content_hash}"):
                made = {**sound, kind: name}
                made["config"] = {**sound["config"], kind: name, f"{kind}_origin": origin}
                made["code"] = {**sound["code"], f"{kind}_origin": origin}
                made["certificate"] = {**sound["certificate"], kind: name}
                try:
                    config = RecordedConfig.model_validate(made["config"])
                    made |= {"identity": config.identity, "group": config.group}
                except ValueError:
                    pass  # refused anyway
                yield made
    for path in edited.leaves(sound):
        if isinstance(edited.at(sound, path), str):
            yield edited.changed(sound, path, f"{evil}:X")


def write_claims(runs: Path, evil: Path) -> int:
    made = list(claims(evil))
    for number, content in enumerate(made):
        folder = edited.write(runs / f"evil-{number}", {**content, "id": f"evil-{number}"}).parent
        config = {"config": content["config"], "data_dir": None, "created": "2026-01-01T00:00:00+00:00"}
        (folder / runs_folder.CONFIG).write_text(json.dumps(config))
    edited.write(runs / "sound", sound_record())
    return len(made)


READING = (
    ["leaderboard"],
    ["leaderboard", "--json"],
    ["leaderboard", "--markdown"],
    ["leaderboard", "--task", "fashion-mnist"],
    ["leaderboard", "--task", "evil.py:X"],
    ["doctor", "--json"],
)


@pytest.mark.slow
def test_no_reading_command_executes_what_a_record_names(suite, runs, tmp_path, evil):
    assert write_claims(runs, evil) > 60
    for arguments in READING:
        ended = suite(*arguments)
        assert ended.code == (1 if arguments[0] == "doctor" else 0), (arguments, ended)
        assert not executed(tmp_path), arguments
    for folder in sorted(runs.iterdir())[:50:7]:
        for arguments in (["show", folder.name], ["show", folder.name, "--json"], ["upload", folder.name]):
            suite(*arguments)
            assert not executed(tmp_path), (arguments, (folder / "record.json").read_text())
    assert [b["rows"][0]["mixer"] for b in json.loads(suite("leaderboard", "--task", "fashion-mnist", "--json").out)]


def test_the_end_of_a_run_executes_nothing_that_other_records_name(suite, runs, tmp_path, evil):
    write_claims(runs, evil)
    entry_points = tmp_path / "site" / "evil_package-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[suite.mixers]\nevil = evil_module:X\n[suite.tasks]\nevil = evil_module:X\n")
    registry._entries.cache_clear()
    tasks.registry._entries.cache_clear()
    ended = suite(*tiny_arguments("fashion-mnist", "fem", "steps=1", "evals=1"))
    assert ended.code == 0, ended.err
    assert not executed(tmp_path)


#: What finds a task or a mixer by executing code, and so has no place where records are read.
EXECUTING = {"parse", "get", "resolve", "resolve_run", "resolve_written", "from_canonical", "import_module", "load"}


@pytest.mark.parametrize("part", ["records", "boards", "tracking"])
def test_what_reads_records_cannot_reach_the_loaders_of_foreign_code(part):
    wrong = []
    for path in sorted((ROOT / "suite" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("suite", "tasks", "backbones")):
                names = {alias.name for alias in node.names} & EXECUTING
                wrong += [f"{path.name}: {name}" for name in names if "record" not in str(node.module)]
            if isinstance(node, ast.Attribute) and node.attr in EXECUTING and isinstance(node.value, ast.Name):
                owner = node.value.id
                wrong += [f"{path.name}: {owner}.{node.attr}"] if owner in ("tasks", "registry", "mixers") else []
    assert wrong == []


def started_with(runs: Path, file: Path, **changes: object) -> str:
    """The folder of a stopped run whose config names the file; its checkpoint is never reached by these tests."""
    origin = f"{file.name}@{sha256(file.read_bytes()).hexdigest()[:12]}"
    config = sound_config() | {"mixer": f"{file}:X", "mixer_origin": origin, **changes}
    folder = runs / "received"
    folder.mkdir(parents=True)
    content = {"config": config, "data_dir": None, "created": "2026-01-01T00:00:00+00:00"}
    (folder / runs_folder.CONFIG).write_text(json.dumps(content))
    (folder / checkpoint.NAME).write_bytes(b"none")
    return str(folder)


COMMANDS = (["run", "--resume"], ["generate"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("origin", ["built-in", "baseline", "evil.py@000000000000", "", None, 3])
def test_a_named_file_is_not_executed_unless_it_is_the_recorded_one(suite, runs, tmp_path, evil, command, origin):
    ended = suite(*command, started_with(runs, evil, mixer_origin=origin))
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert "not executed" in ended.err
    assert not executed(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["task", "mixer"])
def test_a_missing_or_unknown_name_in_a_config_is_one_line(suite, runs, tmp_path, evil, command, kind):
    for name in ("gone.py:X", "evil", "evil_module:X", 3):
        path = started_with(runs, evil, **{"mixer": "fem", "mixer_origin": "built-in", kind: name})
        ended = suite(*command, path)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert not executed(tmp_path), name
        for file in Path(path).iterdir():
            file.unlink()
        Path(path).rmdir()


def test_the_recorded_file_is_announced_before_it_is_executed(suite, runs, tmp_path, evil):
    evil.write_text("print('EXECUTED')\n" + evil.read_text())
    ended = suite("run", "--resume", started_with(runs, evil))
    assert ended.code == 2  # its checkpoint is none
    first = ended.err.splitlines()[0]
    assert str(evil) in first
    assert f"evil.py@{sha256(evil.read_bytes()).hexdigest()[:12]}" in first
    assert executed(tmp_path)


def test_a_file_that_a_recipe_names_is_announced(suite, tmp_path, evil):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"task = 'sotu'\n[mixer]\nname = '{evil}:X'\n")
    ended = suite("budget", "--recipe", str(recipe))
    assert str(evil) in ended.err.splitlines()[0]
    quiet = suite("budget", "--recipe", str(recipe), "--mixer", f"{evil}:X")
    assert "names the mixer" not in quiet.err


def test_the_hash_of_a_claim_is_computed_again_so_that_only_the_claim_is_refused(evil):
    made = next(claims(evil))
    with pytest.raises(record.RecordError, match="unknown to this version"):
        record.parse(json.dumps({**made, "hash": digest({k: v for k, v in made.items() if k != "hash"})}))
