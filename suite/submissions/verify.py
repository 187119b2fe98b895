"""Verifying entries: everything in them is read as data, counted again and compared. Nothing of an author is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from suite.config.identity import canonical_json
from suite.config.run_config import OWN_ORIGINS
from suite.errors import UserError
from suite.records import badges, record
from suite.records.schema import Record
from suite.safe_text import visible
from suite.submissions import entry, folder
from suite.submissions.claims import record_faults
from suite.submissions.entry import Entry, EntryError, Source
from suite.submissions.faults import Check, Fault
from suite.submissions.races import outside, races, summarised


@dataclass
class Verified:
    """What was read, and every fault.

    records: path relative to the verified folder → record, for those that agree with themselves.
    sources: origin of a mixer → its source file.
    """

    records: dict[str, Record] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def verify(path: Path) -> Verified:
    """Verifies a record's file, an entry, or a folder of entries.

    Args:
        path: a record; the folder of an entry; or a folder with entries, or with a folder `entries`.

    Returns:
        The records and the faults.

    Raises:
        UserError: the path is none of these.
    """
    if path.is_file():
        return _single(path)
    if not path.is_dir():
        raise UserError(f"{str(path)!r} does not exist (expected: a record's file, or the folder of an entry)")
    folders = dict(_entries(path))
    if not folders:
        raise UserError(f"{str(path)!r} holds no entry (expected: a folder with {entry.NAME} and {entry.RECORDS}/)")
    found = Verified()
    for name, place in folders.items():
        verified = verify_entry(place)
        prefix = f"{name}/" if name else ""
        found.faults += [Fault(f"{prefix}{f.place}", f.message, f.check) for f in verified.faults]
        found.records |= {f"{prefix}{file}": made for file, made in verified.records.items()}
        found.sources |= verified.sources
    found.faults += [*_repeated(found.records), *_of_badges(path, found.records.values())]
    return found


def _of_badges(path: Path, records: Iterable[Record]) -> Iterator[Fault]:
    """A badge belongs to a record that is here as it was when it was checked."""
    try:
        held = badges.by_record(badges.read(path))
    except UserError as error:
        yield Fault(badges.NAME, visible(str(error)), "ranges")
        return
    for digest in sorted(held.keys() - {made.hash for made in records}):
        yield Fault(badges.NAME, f"a badge names the record {digest}, which is not here", "recount")


def _entries(path: Path) -> Iterator[tuple[str, Path]]:
    if (path / entry.NAME).exists() or (path / entry.RECORDS).is_dir():
        yield "", path
        return
    below = path / "entries" if (path / "entries").is_dir() else path
    for place in sorted(below.iterdir()):
        if place.is_dir() and (below != path or (place / entry.NAME).exists() or (place / entry.RECORDS).is_dir()):
            yield place.relative_to(path).as_posix(), place


def _single(path: Path) -> Verified:
    found = Verified()
    _read_record(path.name, path, found)
    return found


def _read_record(name: str, path: Path, found: Verified) -> None:
    try:
        made = record.read(path)
    except record.RecordError as error:
        found.faults += [Fault(name, visible(fault), error.check) for fault in error.faults]
        return
    found.records[name] = made
    found.faults += [Fault(name, message, check) for message, check in record_faults(made)]


def verify_entry(place: Path) -> Verified:
    """Verifies one entry.

    Args:
        place: its folder.

    Returns:
        Its records by path relative to the folder, and the faults.
    """
    files, found = folder.scan(place), Verified()
    found.faults += files.faults
    for name, path in files.found.items():
        if name.startswith(f"{entry.RECORDS}/"):
            _read_record(name, path, found)
    found.faults += [
        Fault(name, f"this record belongs in {entry.record_path(made)}", "recount")
        for name, made in found.records.items()
        if name != entry.record_path(made)
    ]
    by_record = {id(made): name for name, made in found.records.items()}
    for runs in races(found.records.values()):
        found.faults += [Fault(by_record[id(made)], message, "recount") for made, message in outside(runs)]
    if entry.NAME not in files.found:
        found.faults.append(Fault(entry.NAME, "it is missing: suite submit writes it", "ranges"))
        return found
    try:
        document = entry.read(files.found[entry.NAME])
    except EntryError as error:
        found.faults.append(Fault(entry.NAME, visible(str(error)), "ranges"))
        return found
    found.faults += _of_document(document, place.resolve().name, files.found, found)
    found.sources = {
        source.origin: files.found[source.path]
        for source in document.sources
        if source.path in files.found and _is_sound(source, files.found)
    }
    return found


def _of_document(document: Entry, folder_name: str, files: Mapping[str, Path], found: Verified) -> Iterator[Fault]:
    def fault(message: str, check: Check = "recount") -> Fault:
        return Fault(entry.NAME, message, check)

    if document.author != folder_name:
        yield fault(f"author: {document.author!r} is recorded, the folder is {folder_name!r}")
    notes = _sha256(files.get(entry.NOTES))
    if document.notes != notes:
        yield fault(f"notes: {document.notes} is recorded, the file {entry.NOTES} has {notes}")
    listed, here = document.records, {name for name in files if name.startswith(f"{entry.RECORDS}/")}
    yield from (fault(f"records: {name} is listed, and is not here") for name in sorted(listed.keys() - here))
    yield from (fault(f"records: {name} is here, and is not listed") for name in sorted(here - listed.keys()))
    for name, made in found.records.items():
        if listed.get(name, made.hash) != made.hash:
            yield fault(f"records: {name} has the hash {made.hash}, another one is listed")
    yield from (fault(message) for message in _of_sources(document.sources, files, found.records.values()))
    own = {canonical_json(race.model_dump(mode="json")) for race in document.races}
    derived = {canonical_json(r.model_dump(mode="json")): r for r in summarised(found.records.values())}
    for text, race in derived.items():
        if text not in own:
            yield fault(f"races: not listed as the records have it: {entry.summary(race.model_dump())}")
    for race in document.races:
        if canonical_json(race.model_dump(mode="json")) not in derived:
            yield fault(f"races: its records give another result: {entry.summary(race.model_dump())}")


def _of_sources(sources: Sequence[Source], files: Mapping[str, Path], records: Iterable[Record]) -> Iterator[str]:
    """Every mixer that does not ship with the suite has a source with the hash that its records have, and no other."""
    needed = {made.config.mixer_origin for made in records} - set(OWN_ORIGINS)
    listed = [source.origin for source in sources]
    for origin in sorted(needed - set(listed)):
        yield f"sources: the mixer of {visible(origin)} is not listed"
    for origin in sorted({*(o for o in listed if o not in needed), *(o for o in listed if listed.count(o) > 1)}):
        yield f"sources: {visible(origin)} is listed, but no record needs it, or it is listed twice"
    expected = set()
    for source in sources:
        is_file = ".py@" in source.origin
        if not is_file and source.path is None and source.sha256 is None:
            continue
        if not is_file or source.path != entry.source_path(source.origin) or source.sha256 is None:
            yield f"sources: {visible(source.origin)} is not listed as its origin requires"
            continue
        expected.add(source.path)
        if not _is_sound(source, files):
            content = _sha256(files.get(source.path))
            yield f"sources: {source.path} has the hash {content}, {source.sha256} is listed for {source.origin}"
    for name in sorted(name for name in files if name.startswith(f"{entry.SOURCES}/") and name not in expected):
        yield f"sources: {name} is here, and is not listed"


def _is_sound(source: Source, files: Mapping[str, Path]) -> bool:
    """Whether a file has the listed hash, whose beginning is in the origin that the records have."""
    content = _sha256(files.get(source.path or ""))
    return content == source.sha256 and (content or "").startswith(source.origin.rpartition("@")[2])


def _sha256(path: Path | None) -> str | None:
    return sha256(path.read_bytes()).hexdigest() if path is not None else None


def _repeated(records: Mapping[str, Record]) -> Iterator[Fault]:
    """A run counts once: no second record of a config, and no second name for a result."""
    seen: dict[tuple[str, str], str] = {}
    for name, made in records.items():
        traced = canonical_json([made.task, made.loss_trace]) if len(made.loss_trace) > 1 else made.hash
        keys = {
            "id": made.id,
            "config (identity)": canonical_json([made.identity, made.versions.model_dump(mode="json")]),
            "training losses": traced,
        }
        for what, value in keys.items():
            other = seen.setdefault((what, value), name)
            if other != name:
                yield Fault(name, f"it has the same {what} as {other}", "recount")
                break
