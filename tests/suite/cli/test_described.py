"""Descriptions kept in the cache are those of the code that is here."""

from __future__ import annotations

import json

import pytest

from backbones.mixers import registry
from suite.cli import described
from suite.cli.commands import listing
from suite.cli.described import SOURCES
from suite.kept import ROOT, code_files
from tasks import registry as task_registry


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "descriptions"


@pytest.mark.parametrize(("kind", "group"), [("tasks", "suite.tasks"), ("mixers", "suite.mixers")])
def test_a_kept_description_equals_that_of_the_classes(monkeypatch, cache, kind, group):
    describe, fresh = getattr(listing, f"describe_{kind}"), getattr(listing, f"_describe_{kind}")()
    assert describe() == fresh
    [path] = cache.glob("*.json")
    assert json.loads(path.read_text())["answer"] == {"rows": fresh}
    monkeypatch.setattr(listing, f"_describe_{kind}", lambda: pytest.fail("described again"))
    assert describe() == fresh
    monkeypatch.setattr(described, "entry_points", lambda group: ["a package"])
    monkeypatch.setattr(listing, f"_describe_{kind}", lambda: ["its row"])
    assert describe() == ["its row"]
    assert group in (registry.ENTRY_POINT_GROUP, task_registry.ENTRY_POINT_GROUP)


def test_a_description_of_other_code_is_not_used(monkeypatch, cache):
    made: list[int] = []

    def rows():
        made.append(1)
        return [{"name": len(made)}]

    def described_rows():
        return described.described("mixers", "suite.nothing", rows)

    assert described_rows() == described_rows() == [{"name": 1}]
    monkeypatch.setattr(described, "SOURCES", {"mixers": ("suite/config",)})
    assert described_rows() == [{"name": 2}]


def test_every_file_that_a_description_is_read_from_is_hashed():
    """The modules that describing imports, apart from those that say nothing about tasks and mixers."""
    files = {kind: {str(path.relative_to(ROOT)) for path in code_files(parts)} for kind, parts in SOURCES.items()}
    assert {"tasks/text/sotu.py", "suite/config/recipes/sotu.toml", "suite/cli/commands/listing.py"} <= files["tasks"]
    assert {"backbones/mixers/fem/fem.py", "suite/cli/commands/listing.py"} <= files["mixers"]
    assert not {name for name in files["tasks"] if name.startswith("backbones/")}


def test_where_no_cache_can_be_written_the_lists_are_complete(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    assert described.described("tasks", "suite.nothing", lambda: [{"name": "x"}]) == [{"name": "x"}]
