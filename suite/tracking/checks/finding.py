"""The result of one check of the store."""

from __future__ import annotations

from dataclasses import dataclass

from suite.safe_text import one_line


@dataclass(frozen=True)
class Finding:
    """What a check found.

    name: of the check.
    ok: whether that is right.
    message: what was found and, where it is not right, what to do, in one line without secrets.
    """

    name: str
    ok: bool
    message: str


def finding(name: str, found: str, to_do: str = "") -> Finding:
    """A finding that is right if there is nothing to do.

    Args:
        name: of the check.
        found: what is there.
        to_do: what makes it right; empty where it is.

    Returns:
        The finding, in one line without secrets.
    """
    return Finding(name, not to_do, one_line(f"{found}; {to_do}" if to_do else found))
