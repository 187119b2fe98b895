"""JSON from elsewhere: of bounded size, without repeated keys, NaN, infinities and integers of more than 64 bits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn


def read_text(path: Path, most: int) -> str:
    """The text of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Returns:
        The text.

    Raises:
        ValueError: the file is missing, too large or no UTF-8, or cannot be read; one line without the path.
    """
    try:
        with open(path, "rb") as handle:
            content = handle.read(most + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file cannot be read: {error}") from None
    if len(content) > most:
        raise ValueError(f"the file has more than {most} bytes")
    return text


def parse(text: str) -> dict[str, Any]:
    """The object of a JSON document.

    Args:
        text: the document.

    Returns:
        Its values by key.

    Raises:
        ValueError: it is no JSON object, or holds what is not allowed; one line.
    """
    try:
        raw = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not a JSON document ({error})") from None
    if not isinstance(raw, dict):
        raise ValueError("it is not a JSON object")
    return raw


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is repeated")
    return made


def _integer(digits: str) -> int:
    """An integer of 64 bits: arithmetic with larger ones overflows where boards are made."""
    value = int(digits) if len(digits) <= 20 else 2**63
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"it holds the integer {digits[:20]}…, which has more than 64 bits")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")
