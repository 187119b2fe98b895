"""A sound record as JSON values, and copies of it with one value changed and the hash computed again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suite.config.identity import digest
from suite.records import record
from suite.records.schema import Contract, Parallel, Race, Record, TestUnits, Threads, Tracked
from tests.suite.tiny import made_record

Place = tuple[str | int, ...]


def full_record() -> Record:
    """A finished run in which every optional value is recorded, so that each can be changed."""
    made = made_record("fem", 0.7, name="edited")
    return made.model_copy(
        update={
            "code": made.code.model_copy(update={"git_sha": "a" * 40, "git_dirty": False}),
            "data": made.data.model_copy(update={"details": {"classes": 10}}),
            "product_path": "mkl",
            "deterministic": False,
            "threads": Threads(count=made.hardware.threads, wait_policy="passive"),
            "parallel": Parallel(world_size=1, strategy="ddp"),
            "race": Race(lr=made.config.train.lr, seed=made.seed, role="screening"),
            "contract": Contract(checked=True, version=1),
            "mlflow": Tracked(run_id="0" * 32, uri="sqlite:///mlflow.db"),
            "resumed_at": [2],
            "test_units": TestUnits(word="images", sums=[500.0, 900.0], counts=[800.0, 1200.0]),
        }
    )


def plain(made: Record) -> dict[str, Any]:
    """The record as its file holds it."""
    sealed = made.sealed()
    return {**sealed.content(), "hash": sealed.hash}


def write(folder: Path, content: dict[str, Any], *, rehash: bool = True) -> Path:
    """Writes a record file without any check."""
    folder.mkdir(parents=True, exist_ok=True)
    if rehash:
        content = {**content, "hash": digest({k: v for k, v in content.items() if k != "hash"})}
    path = folder / record.NAME
    path.write_text(json.dumps(content))
    return path


def leaves(value: Any, path: Place = ()) -> Iterator[Place]:
    """Paths of the leaves of a value: scalars, nulls and empty containers. Of a list, its first and last entry."""
    if isinstance(value, dict) and value:
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from leaves(value[index], (*path, index))
    else:
        yield path


def at(content: Any, path: Place) -> Any:
    for part in path:
        content = content[part]
    return content


def copied(content: dict[str, Any], path: Place) -> tuple[dict[str, Any], Any]:
    """A copy whose containers along a path are copies, and the container of the path's last part."""
    made = copy.copy(content)
    here: Any = made
    for part in path[:-1]:
        here[part] = copy.copy(here[part])
        here = here[part]
    return made, here


def changed(content: dict[str, Any], path: Place, value: Any) -> dict[str, Any]:
    """A copy with another value at a path."""
    made, here = copied(content, path)
    here[path[-1]] = value
    return made


def without(content: dict[str, Any], path: Place) -> dict[str, Any]:
    """A copy without the value at a path."""
    made, here = copied(content, path)
    del here[path[-1]]
    return made


def another(value: Any) -> Any:
    """Another value of the same type, as near as possible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.125
    if isinstance(value, str):
        return ("1" if value[:1] == "0" else "0") + value[1:] if value else "x"
    return "text" if value is None else [1] if isinstance(value, list) else {"text": 1}
