"""Where runs are: `$SUITE_HOME`, or `runs/` in the current folder. One folder per run, next to the tracking store."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from suite.config.run_config import RunConfig
from suite.errors import UserError, first_line, nearest, reason
from suite.records import record
from suite.records.home import RECORD, runs_home
from suite.records.schema import Record
from suite.safe_text import quoted
from tasks.storage.cache import write_atomically

CONFIG = "config.json"
LOCK = "running.lock"
MAX_BYTES = 2**20  # of a config file
LATEST = "latest"  # names the newest run
SHOWN = 4  # candidates in a message
SHORT = 4  # characters at the end of an id that are drawn at random


def home() -> Path:
    """The folder of all runs, absolute; it may not exist yet."""
    return runs_home()


def writable_home() -> Path:
    """The folder of all runs, created if needed. Raises UserError where nothing can be written to it."""
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"x" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"runs cannot be written to {folder} ({reason(error)}); set SUITE_HOME to a folder that can be"
        ) from None
    return folder


def new_run(config: RunConfig, data_dir: Path | None, *, deterministic: bool = False) -> Path:
    """Creates a run's folder and writes its config there. The folder's name is for readers only; the identity is the
    hash.
    """
    words = "-".join((config.task.rpartition(":")[2], config.mixer.rpartition(":")[2], config.scale, f"s{config.seed}"))
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9.-]+', '-', words)}-{secrets.token_hex(2)}"
    folder = writable_home() / name
    folder.mkdir()
    content = {
        "config": config.canonical(),
        "data_dir": str(data_dir.absolute()) if data_dir else None,
        "created": now(),
        "identity": config.identity,
        **({"deterministic": True} if deterministic else {}),
    }
    write_atomically(folder / CONFIG, lambda path: path.write_text(json.dumps(content, indent=1), "utf-8"))
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a run's folder: two processes on one run would overwrite each other's checkpoints. Raises UserError where
    another process has locked it.

    The lock ends with its process, however that ends.
    """
    with _one_process(folder.parent):
        lock = _lock(folder)
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked_new_run(
    config: RunConfig, data_dir: Path | None, *, again: bool, deterministic: bool = False
) -> Iterator[Path]:
    """Creates a run's folder and locks it, in one step for other processes. Raises UserError as `refuse_second` does,
    unless the config may run `again`.
    """
    with _one_process(writable_home()):
        if not again:
            _refuse_second(config.identity)
        folder = new_run(config, data_dir, deterministic=deterministic)
        lock = _lock(folder)
    try:
        yield folder
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def refuse_second(identity: str) -> None:
    """Raises UserError while another process runs the same config: it would only give the same result once more."""
    with _one_process(home()):
        _refuse_second(identity)


def _refuse_second(identity: str) -> None:
    for folder in (path.parent for path in home().glob(f"*/{LOCK}")):
        if identity_of(folder) == identity and is_running(folder):
            raise UserError(
                f"run {folder.name} has the same config and is running now; wait for it (if it stops, resume it: "
                f"suite run --resume {folder.name}), or run the same config a second time with --force"
            )


def is_running(folder: Path) -> bool:
    """Whether a process has locked a run's folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        _lock(folder).release()
    except UserError:
        return True
    return False


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"run {folder.name} is running in another process; wait for it to end, or stop it") from None
    return lock


@contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Lets one process at a time look which runs are running and add its own; no file remains."""
    with ExitStack() as stack:
        with suppress(OSError):  # no such folder yet, or a file system without locks
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def now() -> str:
    """The time as records hold it: UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def all_runs() -> list[Path]:
    """The folders of all runs, the oldest first: by the second in their names, then by when their configs were
    written.
    """
    found = [path for path in home().glob(f"*/{CONFIG}") if path.is_file()]
    return [path.parent for path in sorted(found, key=lambda path: (path.parent.name[:15], path.stat().st_mtime_ns))]


def _records_alone() -> str:
    """What to say of records that were copied here without their runs, which boards read and other commands do not."""
    count = sum(1 for _ in home().glob(f"*/{RECORD}"))
    return f"; the {count} record(s) there are for suite leaderboard and suite compare" if count else ""


def find_run(run: str) -> Path:
    """The folder of a run.

    Args:
        run: its path, its id, any unique part of its id in upper or lower case, or `latest`. A part that only one id
            begins or ends with is unique, even where others contain it.

    Returns:
        The folder, absolute.

    Raises:
        UserError: no run, or several; names the nearest ones.
    """
    with suppress(OSError, ValueError):  # a text that can be no path is no folder either
        if (Path(run) / CONFIG).is_file():
            return Path(run).absolute()
    known = all_runs()
    if not known:
        raise UserError(
            f"no run {quoted(run)}: no runs in {home()} yet (set SUITE_HOME if they are elsewhere, or start one: suite "
            f"run --task fashion-mnist --mixer fem){_records_alone()}"
        )
    matches = _matching(run, known)
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(path.name for path in matches[: -SHOWN - 1 : -1])
        more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
        raise UserError(
            f"{quoted(run)} matches {len(matches)} runs: {shown}{more}; give more of the id (suite list runs)"
        )
    near = nearest(run, [path.name for path in known])
    hint = f"; did you mean {near!r}?" if near else f"; the newest: {', '.join(p.name for p in known[:-4:-1])}"
    raise UserError(f"no run {quoted(run)} among the {len(known)} in {home()}{hint} (suite list runs)")


def _matching(run: str, known: Sequence[Path]) -> list[Path]:
    """The runs that a text names: the newest, by the id, by its beginning or end, or by any part, whichever comes
    first.
    """
    if run == LATEST:
        return list(known[-1:])
    wanted = run.casefold()
    if not wanted:
        return []
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: name.startswith(wanted) or name.endswith(wanted),
        lambda name: wanted in name,
    )
    groups = [[path for path in known if test(path.name.casefold())] for test in tests]
    return next((group for group in groups if len(group) == 1), groups[-1])


def short_name(folder: Path, known: Sequence[Path]) -> str:
    """A part of a run's id that names it among others: the random end of the id where that is enough.

    Args:
        folder: of the run.
        known: of all runs.

    Returns:
        What `find_run` resolves to the folder.
    """
    end = folder.name.rpartition("-")[2]
    return end if len(end) >= SHORT and _matching(end, known) == [folder] else folder.name


def read_run(folder: Path) -> dict[str, Any]:
    """A run's config, data folder and time of creation, as `new_run` wrote them. Raises UserError."""
    try:
        with open(folder / CONFIG, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        content: dict[str, Any] = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {first_line(error)}") from None
    types = {"config": dict, "data_dir": str | None, "created": str}
    if not isinstance(content, dict) or any(not isinstance(content.get(name, 0), kind) for name, kind in types.items()):
        raise UserError(f"{folder / CONFIG} is not a run's config as this version writes it")
    return content


def ended(folder: Path) -> Record | None:
    """The record of a run that would end in the same way if it ran again: it is finished, or it diverged. An unreadable
    record counts as none.
    """
    try:
        made = record.read(folder / record.NAME)
    except record.RecordError:
        return None
    return made if made.status in ("finished", "diverged") else None


def stopped(identity: str | None = None) -> list[Path]:
    """The folders of runs that did not end and that no process runs, the newest first; only those of a config where its
    identity is given.
    """
    folders = sorted((path.parent for path in home().glob(f"*/{CONFIG}")), key=lambda path: path.name, reverse=True)
    if identity is not None:
        folders = [folder for folder in folders if identity_of(folder) == identity]
    with _one_process(home()):
        return [folder for folder in folders if ended(folder) is None and not is_running(folder)]


def newest_ended(identity: str, *, deterministic: bool = False) -> tuple[Record, Path] | None:
    """The newest ended run of a config, with its record's file, or the newest `deterministic` one; None where there is
    none.
    """
    for path in sorted(home().glob(f"*/{record.NAME}"), reverse=True):
        made = ended(path.parent) if identity_of(path.parent) == identity else None
        if made and (made.deterministic or not deterministic):
            return made, path
    return None


def began_deterministic(folder: Path) -> bool:
    """Whether a run began with `--deterministic`. False where its config cannot be read."""
    try:
        return read_run(folder).get("deterministic") is True
    except UserError:
        return False


def identity_of(folder: Path) -> object:
    """The identity of a run's config, as `new_run` wrote it; None where it cannot be read."""
    try:
        return read_run(folder).get("identity")
    except UserError:
        return None
