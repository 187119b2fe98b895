"""Descriptions kept in the cache folder: of the built-in tasks and mixers, and of the configs and budgets that they
resolve to. Making one imports PyTorch, which takes five times as long as everything else that these commands need.

Where packages add tasks or mixers, or a command names a file, nothing is kept: their code may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from suite.kept import code, kept

if TYPE_CHECKING:
    from suite.models.resolve import Resolved

Rows = list[dict[str, Any]]

#: What a description is read from. The constants of `kernels` are none of it.
SOURCES = {
    "tasks": ("tasks", "suite/config", "suite/cli/commands/listing.py"),
    "mixers": ("backbones", "tasks/describing.py", "suite/cli/commands/listing.py"),
}
#: Entry points by which packages add to a list.
TASKS, MIXERS = "suite.tasks", "suite.mixers"


def described(kind: str, group: str, describe: Callable[[], Rows]) -> Rows:
    """The rows of a list.

    Args:
        kind: names the list: tasks or mixers.
        group: the entry points of packages that add to it.
        describe: makes the rows, as plain JSON values.

    Returns:
        What `describe` returns, or returned when it was last called with the same code.
    """
    if entry_points(group=group):
        return describe()
    rows: Rows = kept("descriptions", kind, lambda: code(SOURCES[kind]), lambda: {"rows": describe()})["rows"]
    return rows


def described_request(
    command: str, request: Mapping[str, Any], describe: Callable[[Resolved], dict[str, Any]]
) -> dict[str, Any]:
    """What a command shows of the config that its options resolve to.

    Args:
        command: its name.
        request: the keywords of `resolve_run`.
        describe: makes what is shown of a config, as plain JSON values.

    Returns:
        What `describe` returns, or returned for the same options and the same code.

    Raises:
        UserError, DataError, MixerError: as `resolve_run` and `describe` raise them.
    """
    by_data = False

    def find() -> dict[str, Any]:
        import tasks
        from suite.models.resolve import resolve_run

        nonlocal by_data
        resolved = resolve_run(**request)
        by_data = bool(tasks.get(resolved.config.task).data_decides)
        return describe(resolved)

    named = (request.get("task"), request.get("mixer"))
    elsewhere = request.get("recipe") or any(name and ".py" in name for name in named)
    if elsewhere or entry_points(group=TASKS) or entry_points(group=MIXERS):
        return find()
    return kept("configs", [command, request], code, find, keep=lambda: not by_data)
