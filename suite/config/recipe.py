"""Recipes: the options of a run as TOML, shipped with the suite for each task and scale, or a file of the user's.

At the top `task`, `mixer`, `scale`, `seed` and `hybrid`, then the sections `[data]`, `[model]`, `[mixer]` (with `name`)
and `[train]`.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import tasks
from suite.errors import UserError, did_you_mean, first_line
from suite.safe_text import quoted

SCALES = ("board", "quick", "small", "paper")
MAX_BYTES, MAX_LINE = 65_536, 2_000  # of a recipe file; characters of a line
SECTIONS = ("data", "model", "mixer", "train")
Sections = dict[str, dict[str, Any]]


@cache
def _recipe_file(task: str) -> dict[str, Any] | None:
    """`suite/config/recipes/<task>.toml`, or the file there whose `tasks` names the task: tasks of one family share
    one. None for a task that is not built in.
    """
    folder = resources.files("suite.config").joinpath("recipes")
    own = folder.joinpath(f"{task}.toml")
    if ".py:" not in task and own.is_file():
        return tomllib.loads(own.read_text("utf-8"))
    shared = (tomllib.loads(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".toml"))
    return next((content for content in shared if task in content.get("tasks", ())), None)


def _own_recipe(task: str) -> dict[str, Any]:
    """The recipe in the class attribute `recipes` of a third-party task: TOML, or the path of such a file."""
    recipes = tasks.get(task).recipes
    if not recipes:
        raise UserError(f"task {task!r} has no recipe: its class attribute `recipes` is empty (docs/adding-a-task.md)")
    try:
        content = tomllib.loads(recipes.read_text("utf-8") if isinstance(recipes, Path) else recipes)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the recipe of task {task!r} cannot be read: {error}") from None
    parts = ("common", *SCALES)
    for part, sections in content.items():
        if part not in parts or not isinstance(sections, dict):
            raise UserError(
                f"the recipe of task {task!r}: unknown part {part!r}{did_you_mean(part, parts)} (allowed: "
                f"[common.SECTION] and [SCALE.SECTION], SCALE being {', '.join(SCALES)})"
            )
        for name in sections:
            if name not in (*SECTIONS, "mixers"):
                raise UserError(
                    f"the recipe of task {task!r}: unknown section {part}.{name}{did_you_mean(name, SECTIONS)} "
                    f"(allowed: {', '.join(SECTIONS)})"
                )
    return content


def scales_of(task: str) -> tuple[str, ...]:
    """The scales at which a task has a recipe. Raises UserError or DataError where it has none that can be read."""
    content = _recipe_file(task) or _own_recipe(task)
    return tuple(scale for scale in SCALES if scale in content)


def shipped_recipe(task: str, scale: str, mixer: str = "") -> Sections:
    """The sections of a task's recipe at a scale: the file's common part, overridden by the scale's.

    `[SCALE.mixers.NAME]` sets the widths of a mixer for which the solver finds none at that scale's shape. Raises
    UserError where there is no such scale, or no readable recipe.
    """
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}{did_you_mean(scale, SCALES)} (allowed: {', '.join(SCALES)})")
    content = _recipe_file(task) or _own_recipe(task)
    if scale not in content:
        there = ", ".join(name for name in SCALES if name in content)
        raise UserError(f"task {task!r} has no recipe at scale {scale!r}; it has {there or 'none'}")
    merged: Sections = {name: {} for name in SECTIONS}
    for part in (content.get("common", {}), content[scale]):
        for name in SECTIONS:
            merged[name].update(part.get(name, {}))
        merged["mixer"].update(part.get("mixers", {}).get(mixer, {}))
    return merged


def _parsed(path: Path) -> dict[str, Any]:
    """The content of a TOML file of bounded size: the time to parse a key grows with the square of its parts."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    text = raw.decode("utf-8")
    longest = max(map(len, text.splitlines()), default=0)
    if longest > MAX_LINE:
        raise ValueError(f"a line has {longest} characters, {MAX_LINE} are allowed")
    return tomllib.loads(text)


def read_recipe(path: Path) -> dict[str, Any]:
    """A user's recipe file. Raises UserError where it is unreadable or has an unknown name at its top level."""
    try:
        content = _parsed(path)
    except FileNotFoundError:
        raise UserError(f"recipe {quoted(str(path))} does not exist") from None
    except RecursionError:
        raise UserError(f"recipe {str(path)!r} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:  # not UTF-8, not TOML, or an integer of thousands of digits
        raise UserError(f"recipe {quoted(str(path))} cannot be read: {first_line(error)}") from None
    allowed = ("task", "scale", "seed", "hybrid", *SECTIONS)
    for name, value in content.items():
        if name not in allowed:
            raise UserError(
                f"recipe {str(path)!r}: unknown name {quoted(name)}{did_you_mean(name, allowed)} (allowed: "
                f"{', '.join(allowed)})"
            )
        if name in SECTIONS and not isinstance(value, dict) and not (name == "mixer" and isinstance(value, str)):
            raise UserError(f"recipe {str(path)!r}: {name!r} is a section; write [{name}]")
        if name in ("task", "scale", "hybrid") and not isinstance(value, str):
            raise UserError(f"recipe {str(path)!r}: {name} must be a string, {quoted(value)} was given")
    if isinstance(content.get("mixer"), str):
        content["mixer"] = {"name": content["mixer"]}
    name = content.get("mixer", {}).get("name", "")
    if not isinstance(name, str):
        raise UserError(f"recipe {str(path)!r}: mixer.name must be a string, {quoted(name)} was given")
    return content
