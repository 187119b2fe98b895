"""What commands show of boards: it follows from the records, the code and the terminal, and is kept for the next time.

Reading a record recounts its model, which imports PyTorch; a board that was shown before needs neither. A record that
is new or changed, by a single byte, has all of them read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from suite.cli.output import out
from suite.console import warn
from suite.kept import code, content, kept
from suite.records.home import RECORD, runs_home

Report = Callable[[str], None]


def shown(
    command: str, options: Mapping[str, Any], folder: Path | None, find: Callable[[Report], dict[str, Any]]
) -> dict[str, Any]:
    """What a command shows, found or kept from an earlier call. The warnings are printed either way.

    Args:
        command: its name.
        options: what it was called with, as plain JSON values.
        folder: of published records; None for those of the runs here.
        find: finds what is shown, as plain JSON values by name; called with a function that prints a warning.

    Returns:
        What `find` returned.
    """
    warned: list[str] = []

    def report(message: str) -> None:
        warned.append(message)
        warn(message)

    def state() -> str:
        return code() + content(files(folder))

    question = [command, options, str(folder), str((folder or runs_home()).absolute()), _console()]
    answer = kept("boards", question, state, lambda: {"shown": find(report), "warnings": warned})
    for message in answer["warnings"][len(warned) :]:
        warn(message)
    found: dict[str, Any] = answer["shown"]
    return found


def files(folder: Path | None) -> list[Path]:
    """The files that boards and findings are read from.

    Args:
        folder: of published records, badges and claims; None for the runs here.

    Returns:
        Existing paths, in order.
    """
    if folder is None:
        return sorted(runs_home().glob(f"*/{RECORD}"))
    return sorted([*folder.rglob("*.json"), *folder.glob("*.toml")])


def printed(tables: Iterable[Any]) -> str:
    """What printing on stdout would write.

    Args:
        tables: rich's, each printed with an empty line after it.

    Returns:
        Text with the terminal's control sequences for styles.
    """
    with out.capture() as held:
        for each in tables:
            out.print(each, "")
    return held.get()


def _console() -> list[Any]:
    """What the form of a printed table depends on."""
    return [out.width, out.color_system, out.is_terminal, out.encoding, out.no_color]
