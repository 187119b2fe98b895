"""The exception for a user's error, and the suggestion for a misspelt name."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LONGEST_NAME = 100  # characters that are compared with known names


class UserError(Exception):
    """Invalid input of the user. The message is one line: the given value, what is allowed, what to do. Exit code 2."""

    exit_code = 2


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest allowed name, or an empty string."""
    near = difflib.get_close_matches(given[:LONGEST_NAME], list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def reason(error: BaseException) -> str:
    """Why something failed, in one line: what a user calls it where the system's words hide it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"disk full: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def first_line(error: BaseException, limit: int = 500) -> str:
    """The first line of an error's message, at most `limit` characters; the error's type if the message is empty."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"
