"""Mixers in a file that are not what the entry says."""

from __future__ import annotations

from pathlib import Path

from suite.submissions import entry
from tests.suite.submissions.attacks.attack import attack, of_record
from tests.suite.submissions.made import MINE, SOURCE, relist, write_source

of_record("a mixer in a file presented as built-in", "ranges", "is unknown to this version", lambda c: (
    c["config"].update(mixer_origin="built-in"), c["code"].update(mixer_origin="built-in")), MINE)  # fmt: skip
of_record("a mixer in a file under the name of a built-in one", "recount", "config.mixer_origin", lambda c: (
    c.update(mixer="fem"), c["config"].update(mixer="fem"), c["certificate"].update(mixer="fem")), MINE)  # fmt: skip


@attack("a source that differs from its hash", "recount", "has the hash")
def other_source(folder: Path) -> None:
    [path] = (folder / entry.SOURCES).rglob("*.py")
    path.write_text(SOURCE + "# changed\n")


@attack("a source that differs from the records', listed with its own hash", "recount", "has the hash")
def relisted_source(folder: Path) -> None:
    other_source(folder)
    relist(folder)


@attack("a source left out", "recount", "is not listed")
def no_source(folder: Path) -> None:
    [path] = (folder / entry.SOURCES).rglob("*.py")
    path.unlink()
    relist(folder)


@attack("a further source, which no record needs", "recount", "no record needs it")
def further_source(folder: Path) -> None:
    write_source(folder, "import os\n")
    relist(folder)
