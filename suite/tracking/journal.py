"""A run's journal: everything the run logs for MLflow, one JSON document per line, written before it is delivered.

The worker delivers the journal during the run, a resumed run appends to it, and `suite upload` replays it into another
store. Every value carries the time at which it was logged, so that the store recognises a second delivery of the same
line and keeps no duplicate.

`tracking.state.json` in the same folder holds, for every store, which run there belongs to this journal and how many of
its bytes have been delivered.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

JOURNAL = "tracking.jsonl"
STATE = "tracking.state.json"
LOCK = "tracking.lock"
LOG = "tracking.log"

Event = dict[str, Any]
_CHUNK = 1 << 20


class JournalWriter:
    """Appends events. What cannot be written stays in memory and is written with the next event, in order.

    `error` is the current write error, or None. No method raises `OSError`.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / JOURNAL
        self.error: OSError | None = None
        self._pending = bytearray()
        self._fd = -1
        self._open()

    def append(self, event: Event) -> None:
        self._pending += json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        self._write()

    @property
    def unwritten(self) -> int:
        """The number of events that are in memory only."""
        return self._pending.count(b"\n")

    def sync(self) -> None:
        """Flushes everything to the disk, so that the journal survives a power failure as well as a killed process."""
        self._write()
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        self._write()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                self._pending[:0] = b"\n"  # a kill or a full disk cut a line off: readers skip it
        except OSError as error:
            self.error = error

    def _write(self) -> None:
        if self._fd < 0:
            self._open()
        while self._pending and self._fd >= 0:
            try:
                written = os.write(self._fd, self._pending)
            except OSError as error:
                self.error = error
                return
            del self._pending[:written]
            self.error = None


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yields each complete event from byte `offset` onwards, with the offset of its end. An incomplete last line is
    left for later.
    """
    rest = b""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                event = _parse(line)
                if event is not None:
                    yield event, offset


#: The fields of each kind of event that its readers use.
_FIELDS: dict[str, dict[str, type]] = {
    "start": {"time": int, "tags": dict, "experiment": str, "run_name": str, "params": dict}
    | {"tracking_id": str, "run_id": str},
    "resume": {"time": int, "tags": dict},
    "metrics": {"time": int, "step": int, "values": dict},
    "summary": {"time": int, "step": int, "values": dict},
    "tags": {"tags": dict},
    "text": {"name": str, "text": str},
    "file": {"path": str, "folder": str},
    "board": {"note_markdown": str, "primary_metric": str, "ascending": bool, "columns": list},
    "finish": {"time": int, "status": str},
}
#: Fields that events of earlier versions lack.
_OPTIONAL: dict[str, type] = {"dataset": dict, "experiment_tags": dict, "boards": list}


def _parse(line: bytes) -> Event | None:
    """The event of a line; None for a damaged one, so that no reader fails at it."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = _FIELDS.get(event["kind"]) if isinstance(event, dict) and isinstance(event.get("kind"), str) else None
    if fields is None or not all(type(event.get(name)) is kind for name, kind in fields.items()):
        return None
    if not all(type(event[name]) is kind for name, kind in _OPTIONAL.items() if name in event):
        return None
    texts = [text for name in ("tags", "params", "dataset", "experiment_tags") for text in event.get(name, {}).values()]
    whole = all(isinstance(text, str) for text in texts)
    return event if whole and all(type(value) in (int, float) for value in event.get("values", {}).values()) else None


@dataclass
class Delivered:
    """How much of the journal has been delivered to one store: the run there, and the number of bytes.

    `refused` holds the offsets of events before `offset` that the store refused. `known_steps` is empty unless another
    journal began the run: then it is the last step that the store had of each metric. `sent_steps` is the last step
    of each metric that was sent.
    """

    run_id: str = ""
    experiment_id: str = ""
    offset: int = 0
    refused: list[int] = field(default_factory=list)
    known_steps: dict[str, int] = field(default_factory=dict)
    sent_steps: dict[str, int] = field(default_factory=dict)


def open_private(path: Path) -> IO[str]:
    """Opens a log, emptied, that only its owner can read: libraries write what they like to it. Raises `OSError`."""
    path.unlink(missing_ok=True)  # an earlier one may be readable by others, or opened by them
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w")


def load_state(run_dir: Path, store: str) -> Delivered:
    """The saved state for a store, by its public address; an empty one if there is none or the file is damaged."""
    try:
        return Delivered(**_read_states(run_dir)[store])
    except (KeyError, TypeError):
        return Delivered()


def save_state(run_dir: Path, store: str, state: Delivered) -> None:
    """Writes the state atomically. Raises `OSError`."""
    states = _read_states(run_dir)
    states = {name: value for name, value in states.items() if "@" not in name and "?" not in name}  # as once written
    states[store] = asdict(state)
    temporary = run_dir / f"{STATE}.tmp"
    temporary.write_text(json.dumps(states, indent=1))
    temporary.replace(run_dir / STATE)


def _read_states(run_dir: Path) -> dict[str, Any]:
    try:
        states = json.loads((run_dir / STATE).read_text())
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}


def now_ms() -> int:
    """The current time in MLflow's unit: milliseconds since 1970. Within a process it never goes back, even when the
    clock is set.
    """
    return (_CLOCK_ORIGIN_NS + time.monotonic_ns()) // 1_000_000


_CLOCK_ORIGIN_NS = time.time_ns() - time.monotonic_ns()
