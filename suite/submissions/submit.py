"""Writing an entry from runs: the whole race of each, with the source of a mixer that does not ship with the suite."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import tasks
from backbones.mixers import registry as mixers
from suite.boards.board import group
from suite.boards.naming import untuned_configuration
from suite.boards.raced import race_of
from suite.boards.rows import has_figures
from suite.config.run_config import OWN_ORIGINS
from suite.errors import UserError
from suite.records import collection, provenance, record, runs_folder
from suite.records.schema import Record
from suite.submissions import entry
from suite.submissions.entry import Entry, RaceSummary, Source
from suite.submissions.races import summarised


@dataclass(frozen=True)
class Submitted:
    """What was written: the entry's folder, its races, and how many of its records are new."""

    folder: Path
    races: tuple[RaceSummary, ...]
    records: int
    new: int


def submit(
    runs: Sequence[str], *, author: str, notes: Path | None = None, folder: Path | None = None, unfinished: bool = False
) -> Submitted:
    """Writes an entry, or adds to the author's.

    Args:
        runs: ids or folders of runs, files of records, or folders of either. Of a run in the runs folder, all runs of
            its race are submitted.
        author: the entry's name.
        notes: a text file for readers.
        folder: of the entry; by default `leaderboards/entries/AUTHOR` in a checkout, else `AUTHOR`.
        unfinished: whether races that have not ended are submitted too.

    Returns:
        What was written.

    Raises:
        UserError: a run is unknown, has no result or was changed, its race has not ended, or a file does not fit.
        RecordError: a record is damaged or contradicts itself.
    """
    folder = entry_folder(author, notes, folder)
    found = _records(runs)
    if not found:
        raise UserError("nothing to submit: name a run (a run's id or folder)")
    for made in found:
        _require_submittable(made)
    before = _before(folder)
    kept = {made.hash: made for made in (*before, *found)}
    _require_single(kept.values())
    races = tuple(summarised(kept.values()))
    open_races = [race for race in races if race.chosen is None]
    if open_races and not unfinished:
        first = entry.summary(open_races[0].model_dump())
        more = f" (and {len(open_races) - 1} more)" if len(open_races) > 1 else ""
        raise UserError(
            f"the race of {first}{more}: runs are missing, and a row needs all of them; run suite sweep again, or "
            "submit without a rank with --unfinished"
        )
    sources = dict(_sources(folder, found, before))
    text = _notes(notes, folder)
    for source, content in sources.items():
        if source.path is not None:
            entry.write_file(folder / source.path, content)
    for made in kept.values():
        entry.write_file(folder / entry.record_path(made), entry.record_text(made))
    if text is not None:
        entry.write_file(folder / entry.NOTES, text)
    document = Entry(
        author=author,
        notes=_sha256(text) if text is not None else None,
        sources=tuple(sources),
        races=races,
        records={entry.record_path(made): made.hash for made in sorted(kept.values(), key=entry.record_path)},
    )
    entry.write(folder, document)
    return Submitted(folder, races, len(kept), len(kept) - len(before))


def require_rankable(task: str) -> None:
    """Raises UserError if runs of a task made now could have no row on a board, so that none is made."""
    if task in tasks.names() and tasks.built_in(task) is None:
        raise UserError(f"the task {task!r} does not ship with the suite, so it has no board that can be entered")
    if provenance.code("", "").git_dirty:
        raise UserError(
            "files of the suite are changed (git status), and runs of changed code have no rank; commit or undo the "
            "changes first"
        )


def entry_folder(author: str, notes: Path | None = None, folder: Path | None = None, mixer: str = "") -> Path:
    """The folder of an entry, after everything has been checked that can be before its runs exist.

    Args:
        author: the entry's name.
        notes: a text file for readers.
        folder: of the entry; by default `leaderboards/entries/AUTHOR` in a checkout, else `AUTHOR`.
        mixer: its mixer, which may be `path/to/file.py:Class`.

    Returns:
        The folder, which need not exist.

    Raises:
        UserError: a name, the notes or the mixer's file do not fit into an entry.
    """
    if not _is_author(author):
        raise UserError(f"--author {author[:80]!r}: up to 39 lower-case letters, digits and '-' are allowed")
    folder = folder or _default_folder(author)
    if folder.resolve().name != author:  # as it is verified
        raise UserError(
            f"--output {str(folder)!r}: the folder of an entry has its author's name; give "
            f"{str(folder / author)!r}, or another --author"
        )
    _notes(notes, folder)
    if ".py:" in mixer:
        _require_one_file(Path(mixer.rpartition(":")[0]))
    return folder


def _is_author(author: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,38}", author) is not None


def _default_folder(author: str) -> Path:
    boards = Path("leaderboards") / "entries"
    return boards / author if boards.is_dir() else Path(author)


def _records(runs: Sequence[str]) -> list[Record]:
    found, here = dict[str, Record](), cache(lambda: collection.read_all().records)
    for run in runs:
        for made in _named(run, here):
            found[made.hash] = made
    return list(found.values())


def _named(run: str, here: Callable[[], Sequence[Record]]) -> Iterable[Record]:
    path = Path(run)
    if path.is_file():
        return [record.read(path)]
    if path.is_dir() and not (path / runs_folder.CONFIG).is_file():
        published, _ = collection.read_published(path)
        if published.refused:
            raise UserError(published.refused[0].reason)
        return [made for made in published.records if has_figures(made)]
    made = record.read(runs_folder.find_run(run) / record.NAME)
    return [made, *_same_race(made, here())]


def _same_race(made: Record, every: Sequence[Record]) -> Iterable[Record]:
    """The other runs of a race in the runs folder; of a repeated config, the newest one."""
    if race_of(made) is None:
        return []
    of_board = next(some for some in group([*every, made]) if made in some)
    own = untuned_configuration(made)
    newest = {each.identity: each for each in of_board if has_figures(each) and untuned_configuration(each) == own}
    newest.pop(made.identity, None)
    return newest.values()


def _require_submittable(made: Record) -> None:
    if made.status not in ("finished", "diverged"):
        raise UserError(f"run {made.id} is {made.status}; only runs that have ended have a result to submit")
    if tasks.built_in(made.task) is None:
        raise UserError(f"run {made.id}: the task {made.task!r} does not ship with the suite, so it has no board there")
    if made.code.git_dirty:
        raise UserError(
            f"run {made.id} was made while files of the suite were changed, so it can have no rank; commit or undo the "
            "changes and run it again"
        )


def _before(folder: Path) -> list[Record]:
    """The records that the entry already has."""
    return [record.read(path) for path in sorted((folder / entry.RECORDS).rglob("*.json"))]


def _require_single(records: Iterable[Record]) -> None:
    by_config: dict[tuple[str, str], Record] = {}
    for made in records:
        other = by_config.setdefault((made.identity, str(made.versions)), made)
        if other is not made:
            raise UserError(f"the runs {other.id} and {made.id} have the same config; submit one of them")


def _sources(folder: Path, new: Sequence[Record], before: Sequence[Record]) -> Iterator[tuple[Source, str]]:
    """The sources of all mixers that need one, each with the content of its file; empty for a package."""
    for origin in sorted({made.config.mixer_origin for made in (*before, *new)} - set(OWN_ORIGINS)):
        if ".py@" not in origin:
            yield Source(origin=origin, path=None, sha256=None), ""
            continue
        path = entry.source_path(origin)
        made = next((made for made in new if made.config.mixer_origin == origin), None)
        text = (_file_of(made) if made else folder / path).read_bytes().decode("utf-8")
        yield Source(origin=origin, path=path, sha256=_sha256(text)), text


def _sha256(text: str) -> str:
    return sha256(text.encode("utf-8")).hexdigest()


def _file_of(made: Record) -> Path:
    """The file of a run's mixer, as it was when the run started."""
    folder = runs_folder.home() / made.id
    if not (folder / runs_folder.CONFIG).is_file():
        raise UserError(f"run {made.id} is not in {runs_folder.home()}, so the file of its mixer is unknown")
    name = str(runs_folder.read_run(folder)["config"].get("mixer", ""))
    file = Path(name.rpartition(":")[0])
    if not file.is_file():
        raise UserError(f"the mixer's file {str(file)!r} of run {made.id} does not exist (any more)")
    if mixers.origin(name) != made.config.mixer_origin:
        raise UserError(
            f"the mixer's file {str(file)!r} has changed since run {made.id}: {made.config.mixer_origin} was recorded, "
            f"{mixers.origin(name)} is here; run it again"
        )
    _require_one_file(file)
    return file


def _require_one_file(file: Path) -> None:
    """Raises UserError for a file that is missing, too large, or imports files next to it: an entry has one."""
    if not file.is_file():
        raise UserError(f"the mixer's file {str(file)!r} does not exist")
    if file.stat().st_size > entry.MAX_SOURCE:
        raise UserError(f"the mixer's file {str(file)!r} has more than {entry.MAX_SOURCE} bytes")
    tree = ast.parse(file.read_text("utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for name in names:
        first = name.partition(".")[0]
        if not first or (file.parent / f"{first}.py").is_file():
            raise UserError(
                f"the mixer's file {str(file)!r} imports {name!r} next to it; a submitted mixer is one file"
            )


def _notes(path: Path | None, folder: Path) -> str | None:
    """The notes that are given, else those that the entry has."""
    if path is None:
        path = folder / entry.NOTES
        return path.read_bytes().decode("utf-8") if path.is_file() else None
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--notes {str(path)!r} cannot be read as text: {error}") from None
    if len(text.encode()) > entry.MAX_NOTES:
        raise UserError(f"--notes {str(path)!r} has more than {entry.MAX_NOTES} bytes")
    return text
