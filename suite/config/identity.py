"""Hashes of configs that stay what they are when options are added."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from pydantic import BaseModel, Field

#: In a field's `json_schema_extra`: the default that the option was introduced with. Options without it belong to the
#: first version of their model.
INTRODUCED = "introduced_with"
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def introduced(default: Any, *, now: Any = None, **field: Any) -> Any:
    """An option that was added later than its model: while it has the value it was introduced with, hashes and records
    leave it out, so that what was hashed or recorded before stays valid.

    An option of a task or a mixer, which cannot import the suite, is declared by hand:
    `Field(default, json_schema_extra={"introduced_with": default})`.

    Args:
        default: the value that says what runs did before the option existed. It never changes.
        now: another default for new runs; None: the same.
        field: what pydantic's `Field` accepts, `description` and ranges for example.

    Returns:
        The field.
    """
    return Field(default=default if now is None else now, json_schema_extra={INTRODUCED: default}, **field)


@cache
def introduced_values(model: type[BaseModel]) -> dict[str, Any]:
    """The options of a model that were added later.

    Args:
        model: the class of some options.

    Returns:
        By name, the JSON value that each was introduced with.
    """
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {
        name: json.loads(canonical_json(extra[INTRODUCED]))
        for name, extra in extras.items()
        if isinstance(extra, Mapping) and INTRODUCED in extra
    }


def significant(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Options without those that have the value they were introduced with.

    Args:
        values: plain JSON values by option.
        model: the class that declares the options.

    Returns:
        The other options.
    """
    left_out = introduced_values(model)
    return {k: v for k, v in values.items() if k not in left_out or canonical_json(v) != canonical_json(left_out[k])}


def without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A config without some of its options.

    Args:
        values: plain JSON values; a section of options is a mapping.
        names: `option` or `section.option`; those that do not exist are ignored.

    Returns:
        A copy.
    """
    kept = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for name in names:
        section, _, option = name.rpartition(".")
        (kept[section] if section else kept).pop(option, None)
    return kept


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text.

    Args:
        value: plain JSON values.

    Returns:
        The text.
    """
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """The hash of a value.

    Args:
        value: plain JSON values.

    Returns:
        sha256 (hex) of its canonical JSON.
    """
    return sha256(canonical_json(value).encode()).hexdigest()
