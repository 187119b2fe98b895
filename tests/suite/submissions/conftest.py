"""A sound entry, which tests of submissions copy and change."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from suite.records import record
from tests.suite.submissions.made import sound_entry


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    return sound_entry(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="package", autouse=True)
def _read_equal_records_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "parse", lru_cache(maxsize=None)(record.parse))
        yield
