"""The exception for a mixer that cannot be used, and the hint at the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MixerError(Exception):
    """A mixer that cannot be found, loaded or configured. The message is one line for the user."""

    exit_code = 2


def did_you_mean(given: str, allowed: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean 'fem'?` where one of the allowed names is close to the given one, else `otherwise`."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else otherwise
