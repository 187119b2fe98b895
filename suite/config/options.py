"""Options by section (data, model, mixer, train): finding the one that a `--set` names, and validating values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from suite.config.recipe import Sections
from suite.errors import UserError, did_you_mean
from suite.safe_text import quoted

Models = Mapping[str, type[BaseModel]]  # the options' class of each section
LARGEST = 10**15  # of any integer option; those of the model and of training have smaller bounds
M = TypeVar("M", bound=BaseModel)
NULLS = ("none", "null")  # how an option is left without a value in a text


def apply_sets(sections: Sections, sets: Iterable[str], models: Models) -> None:
    """Enters `--set` values into the sections. Raises UserError for a text that is not `key=value`, and for an option
    that does not exist or is ambiguous.
    """
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set takes key=value, {quoted(text)} was given; for example --set lr=3e-3")
        section, name = located(key.strip(), models)
        sections[section][name] = value.strip()


def validated(section: str, model: type[M], values: Mapping[str, Any]) -> M:
    """The options of a section. Raises UserError with the first invalid value, or the nearest valid name."""
    for name in values:
        if name not in model.model_fields:
            near = did_you_mean(name, model.model_fields)
            raise UserError(
                f"unknown option {quoted(f'{section}.{name}')}{near} (allowed: {', '.join(model.model_fields)})"
            )
    cleaned = {name: _null_or_value(model.model_fields[name], value) for name, value in values.items()}
    try:
        options = model.model_validate(cleaned)
    except RecursionError:
        raise UserError(f"{section}: a value is nested too deeply") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([section, *(str(part) for part in first["loc"])])
        given = "" if not first["loc"] else f", {quoted(first['input'])} was given"
        several = isinstance(first["input"], str) and "," in first["input"]
        hint = f" (suite sweep takes several: --set {where.split('.')[-1]}={first['input']})" if several else ""
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}{given}{hint}") from None
    for name, value in options:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UserError(f"{section}.{name}: at most {LARGEST} is allowed, {quoted(value)} was given")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{section}.{name}: a finite number is allowed, {value} was given")
    return options


def _null_or_value(field: FieldInfo, value: Any) -> Any:
    """None for the text `none` or `null`, where the option can be absent and has no value of that name."""
    if not isinstance(value, str) or value.lower() not in NULLS or value in literals(field.annotation):
        return value
    return None if NoneType in get_args(field.annotation) else value


def literals(annotation: Any) -> tuple[Any, ...]:
    """Every value that an annotation lists.

    Args:
        annotation: of an option; its `Literal`s may be inside unions and containers.

    Returns:
        The values of all its `Literal`s, in order.
    """
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(value for part in get_args(annotation) for value in literals(part))


def located(key: str, models: Models) -> tuple[str, str]:
    """The (section, field) of a `--set` key; the section may be left out where the field's name is unique. Raises
    UserError for an option that does not exist or is ambiguous.
    """
    section, _, field = key.rpartition(".")
    found = [s for s, model in models.items() if field in model.model_fields and section in ("", s)]
    if len(found) == 1:
        return found[0], field
    if found:
        raise UserError(f"--set {key}: {' and '.join(f'{s}.{field}' for s in found)} both exist; name one of them")
    every = [f"{s}.{f}" for s, model in models.items() for f in model.model_fields]
    near = did_you_mean(field, [name.partition(".")[2] for name in every])
    if section and section not in models:
        near = did_you_mean(section, models)
    raise UserError(f"unknown option {quoted(key)}{near} (suite show --task T --mixer M lists them all)")
