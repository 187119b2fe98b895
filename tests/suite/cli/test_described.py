"""Descriptions kept in the cache are those of the code that is here."""

from __future__ import annotations

import json

import pytest

from backbones.mixers import registry
from suite.cli import described
from suite.cli.commands import listing
from tasks import registry as task_registry


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "descriptions"


@pytest.mark.parametrize(("kind", "group"), [("tasks", "suite.tasks"), ("mixers", "suite.mixers")])
def test_a_kept_description_equals_that_of_the_classes(monkeypatch, cache, kind, group):
    describe, fresh = getattr(listing, f"describe_{kind}"), getattr(listing, f"_describe_{kind}")()
    assert describe() == fresh
    assert json.loads((cache / f"{kind}.json").read_text())["rows"] == fresh
    monkeypatch.setattr(listing, f"_describe_{kind}", lambda: pytest.fail("described again"))
    assert describe() == fresh
    monkeypatch.setattr(described, "entry_points", lambda group: ["a package"])
    monkeypatch.setattr(listing, f"_describe_{kind}", lambda: ["its row"])
    assert describe() == ["its row"]
    assert group in (registry.ENTRY_POINT_GROUP, task_registry.ENTRY_POINT_GROUP)


def test_a_description_of_other_code_or_a_damaged_one_is_not_used(monkeypatch, cache):
    made: list[int] = []

    def rows():
        made.append(1)
        return [{"name": len(made)}]

    def described_rows():
        return described.described("things", "suite.nothing", rows)

    assert described_rows() == described_rows() == [{"name": 1}]
    monkeypatch.setattr(described, "SOURCES", ("suite/config",))
    assert described_rows() == [{"name": 2}]
    for damage in (b"", b"{", b"[]", b'{"code": 1}', b"\xff"):
        (cache / "things.json").write_bytes(damage)
        assert described_rows() == [{"name": len(made)}]
    assert len(made) == 7


def test_every_file_that_a_description_is_read_from_is_hashed():
    files = {str(path.relative_to(described.ROOT)) for path in described._files()}
    assert {"backbones/mixers/fem/fem.py", "tasks/text/sotu.py", "suite/config/recipes/sotu.toml"} <= files
    assert "suite/cli/commands/listing.py" in files


def test_where_no_cache_can_be_written_the_lists_are_complete(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "file" / "below"))
    assert described.described("things", "suite.nothing", lambda: [{"name": "x"}]) == [{"name": "x"}]
