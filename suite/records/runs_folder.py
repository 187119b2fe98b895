"""Where runs are: `$SUITE_HOME`, or `runs/` in the current folder. One folder per run, next to the tracking store."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.records import record
from tasks.storage.cache import write_atomically

CONFIG = "config.json"
LOCK = "running.lock"


def home() -> Path:
    """The folder of all runs, absolute; it may not exist yet."""
    return Path(os.environ.get("SUITE_HOME") or "runs").absolute()


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
            f"runs cannot be written to {folder} ({error.strerror}); set SUITE_HOME to a folder that can be"
        ) from None
    return folder


def new_run(config: RunConfig, data_dir: Path | None) -> Path:
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
    }
    write_atomically(folder / CONFIG, lambda path: path.write_text(json.dumps(content, indent=1), "utf-8"))
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a run's folder: two processes on one run would overwrite each other's checkpoints. Raises UserError where
    another process has locked it.

    The lock ends with its process, however that ends.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"run {folder.name} is running in another process; wait for it to end, or stop it") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def now() -> str:
    """The time as records hold it: UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def find_run(run: str) -> Path:
    """The folder of a run given by its path, its id, or the unique beginning or end of its id. Raises UserError."""
    if (Path(run) / CONFIG).is_file():
        return Path(run).absolute()
    known = sorted(path.parent for path in home().glob(f"*/{CONFIG}"))
    exact = [path for path in known if path.name == run]
    matches = exact or [path for path in known if path.name.startswith(run) or path.name.endswith(run)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f"{run!r} matches {len(matches)} runs: {', '.join(p.name for p in matches[:4])}; give more of the name"
        )
    raise UserError(f"no run {run!r} in {home()} ({len(known)} runs there; suite leaderboard lists them)")


def read_run(folder: Path) -> dict[str, Any]:
    """A run's config, data folder and time of creation, as `new_run` wrote them. Raises UserError."""
    try:
        content: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(content, dict) or not {"config", "data_dir", "created"} <= content.keys():
        raise UserError(f"{folder / CONFIG} is not a run's config as this version writes it")
    return content


def finished(folder: Path) -> bool:
    """Whether a run has a record of a finished run. Raises RecordError where its record cannot be relied on."""
    path = folder / record.NAME
    return path.is_file() and record.read(path).status == "finished"
