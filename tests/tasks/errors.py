"""The message of a DataError: one line for the user."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasks.base import DataError


def error_of(action: Callable[..., object], *arguments: object) -> str:
    """The message of the DataError that `action(*arguments)` raises, which must be one line."""
    with pytest.raises(DataError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
