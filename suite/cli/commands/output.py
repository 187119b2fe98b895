"""What a machine reads of a command."""

from __future__ import annotations

import json
from typing import Any


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
