"""The record that others are edited from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.suite.records import edited


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    return edited.plain(edited.full_record())
