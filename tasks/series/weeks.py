"""Steps per week of a spacing."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "min": 60, "t": 60, "h": 3600, "d": 86_400}
_WEEK = 7 * 86_400


def steps_per_week(frequency: str) -> int:
    """How many steps a week has.

    Args:
        frequency: the spacing as pandas writes it: `h`, `15min`, `D`.

    Returns:
        The number; 0 where a week has no whole number of steps, as with months or business days.
    """
    found = re.fullmatch(r"(\d*)(s|min|t|h|d)", frequency.lower())
    seconds = int(found[1] or 1) * _SECONDS[found[2]] if found else 0
    return _WEEK // seconds if seconds and _WEEK % seconds == 0 else 0
