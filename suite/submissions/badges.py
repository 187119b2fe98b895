"""Giving badges to what was verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from suite.errors import UserError, reason
from suite.records import badges, provenance
from suite.records.badges import Checked
from suite.submissions.replay import CPU, Replayed
from suite.submissions.reproduce import Reproduced
from suite.submissions.verify import Verified


def folder_of(path: Path) -> Path:
    """The folder of the boards that a path belongs to.

    Args:
        path: the folder with `entries`, or an entry in it.

    Returns:
        The folder that holds the badges.

    Raises:
        UserError: the path is neither, so that its badges would be part of an entry.
    """
    path = path.resolve()
    if (path / "entries").is_dir():
        return path
    if path.is_dir() and path.parent.name == "entries":
        return path.parent.parent
    raise UserError(f"--badge: {str(path)!r} is neither a folder with entries/ nor an entry in one")


def award(
    folder: Path, found: Verified, replayed: Mapping[str, Replayed], reproduced: Sequence[Reproduced] = ()
) -> Path:
    """Writes the badges of records without a fault.

    Args:
        folder: from `folder_of`.
        found: what was verified.
        replayed: whose first steps were trained again, by the record's path.
        reproduced: rows that were trained again to the end.

    Returns:
        The file.

    Raises:
        UserError: it cannot be written.
    """
    hardware = provenance.hardware(CPU)
    day, machine = datetime.now(UTC).date().isoformat(), f"{hardware.processor}, {hardware.cores} cores"
    every = tuple(sorted(made.hash for made in found.records.values()))
    again = tuple(sorted(found.records[name].hash for name, each in replayed.items() if not each.fault))
    rows = [
        Checked(
            badge="reproduced",
            day=day,
            machine=machine,
            records=tuple(sorted(found.records[name].hash for name in each.records)),
            figures=each.figures,
        )
        for each in reproduced
        if not each.fault
    ]
    try:
        return badges.add(
            folder,
            [
                Checked(badge="reported", day=day, machine=machine, records=every),
                Checked(badge="replayed", day=day, machine=machine, records=again),
                *rows,
            ],
        )
    except OSError as error:
        raise UserError(f"{str(folder / badges.NAME)!r} cannot be written: {reason(error)}") from None
