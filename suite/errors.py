"""The exception for a user's error, and the suggestion for a misspelt name."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

LONGEST_NAME = 100  # characters that are compared with known names
#: What others call it: a word and the names that stand for it here, of which the first allowed one is suggested. Names
#: of mixers have their own table in `backbones.mixers.errors`.
OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "gpu": ("cuda",),
    "learning_rate": ("lr",),
    "max_lr": ("lr",),
    "wd": ("weight_decay",),
    "decay": ("weight_decay",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "iterations": ("steps",),
    "max_steps": ("steps",),
    "epochs": ("steps",),
    "layers": ("depth",),
    "num_layers": ("depth",),
    "n_layer": ("depth",),
    "hidden_size": ("dim",),
    "d_model": ("dim",),
    "width": ("dim",),
    "num_heads": ("heads",),
    "n_head": ("heads",),
    "context": ("length",),
    "seq_len": ("length",),
    "model": ("mixer",),
    "dataset": ("task",),
    "random_seed": ("seed",),
    "text": ("language",),
    "images": ("vision",),
    "series": ("forecasting",),
    "full": ("paper",),
    "tiny": ("board",),
    "medium": ("small",),
    "large": ("paper",),
}


class UserError(Exception):
    """Invalid input of the user. The message is one line: the given value, what is allowed, what to do. Exit code 2."""

    exit_code = 2


def nearest(given: str, allowed: Iterable[str]) -> str:
    """The allowed name that a wrong one probably means: in other capitals, by another word, or with a typing error.

    Args:
        given: the wrong name.
        allowed: the valid names.

    Returns:
        One of `allowed`, or an empty string.
    """
    folded = {name.casefold(): name for name in reversed(list(allowed))}
    words = {word: next((name for name in others if name in folded), "") for word, others in OTHER_WORDS.items()}
    meant = {word: folded[name] for word, name in words.items() if name} | folded
    word = given[:LONGEST_NAME].casefold()
    near = [name for name in (word, word.replace("-", "_")) if name in meant][:1]
    near = near or difflib.get_close_matches(word, meant, n=1, cutoff=0.6)
    return meant[near[0]] if near else ""


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest allowed name, or an empty string."""
    near = nearest(given, allowed)
    return f"; did you mean {near!r}?" if near else ""


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
