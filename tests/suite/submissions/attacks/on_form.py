"""Text, files and folders that are no entry's."""

from __future__ import annotations

import os
from pathlib import Path

from suite.records import badges
from suite.submissions import entry
from tests.suite.submissions.attacks.attack import attack, of_record, set_metric, without_reading
from tests.suite.submissions.made import (
    MINE,
    edit_document,
    forge,
    path_of,
    records,
    relist,
)

of_record("a key too many in a record", "ranges", "stars", lambda c: c.update(stars=5))
of_record("control sequences in a name", "ranges", "id", lambda c: c.update(id="\x1b[2Jfem"))
of_record("HTML in a name", "ranges", "id: ", lambda c: c.update(id="<b>fem</b>"))
of_record("Markdown in a mixer's name", "ranges", "mixer: ", lambda c: (
    c.update(mixer="[x](y).py:Z"),
    c["config"].update(mixer="[x](y).py:Z", mixer_origin="[x](y).py@" + "0" * 12),
    c["code"].update(mixer_origin="[x](y).py@" + "0" * 12),
    c["certificate"].update(mixer="[x](y).py:Z")), MINE)  # fmt: skip
of_record("text that is shown backwards", "ranges", "has control characters",
          lambda c: c["hardware"].update(processor="\u202eCPU"))  # fmt: skip


@attack("a key twice in a record", "ranges", "a key is repeated")
def repeated_key(folder: Path) -> None:
    without_reading(folder, '"seed":0', '"seed":1,"seed":0')


@attack("a key twice in the document", "ranges", "a key is repeated")
def repeated_key_in_document(folder: Path) -> None:
    path = folder / entry.NAME
    path.write_text(path.read_text().replace('"author"', '"author": "eve", "author"', 1))


@attack("a key too many in the document", "ranges", "badge")
def further_key(folder: Path) -> None:
    edit_document(folder, lambda content: content.update(badge="reproduced"))


@attack("a badge in the entry", "ranges", "no such file belongs to an entry")
def own_badge(folder: Path) -> None:
    (folder / badges.NAME).write_text("{}")


@attack("a badge of a record that was edited since", "recount", "which is not here")
def stale_badge(folder: Path) -> None:
    digest = records(folder)[path_of(folder).relative_to(folder).as_posix()].hash
    checked = badges.Checked(badge="replayed", day="2026-01-01", machine="m", records=(digest,))
    badges.add(folder.parents[1], [checked])
    forge(folder, set_metric("test", 0.9))


@attack("10 MB of notes", "ranges", "are allowed")
def long_notes(folder: Path) -> None:
    (folder / entry.NOTES).write_text("x" * 10_000_000)
    relist(folder)


@attack("a record of more than 64 KB", "ranges", "are allowed")
def long_record(folder: Path) -> None:
    path_of(folder).write_text(path_of(folder).read_text() + " " * 70_000)


@attack("a path that climbs out of the folder", "ranges", "records")
def climbing(folder: Path) -> None:
    edit_document(folder, lambda content: content["records"].update({"records/../../eve/x.json": "0" * 64}))


@attack("a link to a file elsewhere", "ranges", "it is a link")
def link(folder: Path) -> None:
    target = folder.parents[1] / "elsewhere.json"
    path_of(folder).rename(target)
    path_of(folder).symlink_to(target)


@attack("a link to a folder elsewhere", "ranges", "it is a link")
def folder_link(folder: Path) -> None:
    (folder / entry.RECORDS).rename(folder.parents[1] / "elsewhere")
    (folder / entry.RECORDS).symlink_to(folder.parents[1] / "elsewhere")


@attack("a pipe that never ends", "ranges", "it is no plain file")
def pipe(folder: Path) -> None:
    os.mkfifo(path_of(folder).with_name("pipe.json"))


@attack("a program next to the records", "ranges", "no such file belongs to an entry")
def program(folder: Path) -> None:
    (folder / "setup.py").write_text("raise SystemExit\n")


@attack("another author's name in the document", "recount", "author")
def other_author(folder: Path) -> None:
    edit_document(folder, lambda content: content.update(author="eve"))


@attack("a record that nests a million brackets", "ranges", "JSON")
def nested(folder: Path) -> None:
    path_of(folder).write_text("[" * 60_000)
