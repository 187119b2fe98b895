"""The cache folder: its locks."""

from __future__ import annotations

import pytest

from tasks.storage import cache
from tests.tasks.errors import error_of


def test_a_lock_in_a_place_that_is_not_a_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("")

    def lock() -> None:
        with cache.lock(tmp_path / "file" / "lock"):
            raise AssertionError

    message = error_of(lock)
    assert str(tmp_path / "file") in message
    assert "set SUITE_CACHE" in message


def test_a_lock_passes_errors_on_and_is_released(tmp_path):
    with pytest.raises(OSError, match="of the body"), cache.lock(tmp_path / "lock"):
        raise OSError("of the body")
    with cache.lock(tmp_path / "lock"):
        pass
