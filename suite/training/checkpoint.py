"""Checkpoints: sealed with a sha256, written atomically, read without executing anything, enough to resume bit for bit.

A run keeps its last `KEPT` checkpoints and the one with the best validation metric, so that a damaged file costs a few
steps, not the run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import torch

from suite.errors import UserError, first_line
from suite.training.parallel import folders

FORMAT = 2
UNSEALED = 1  # the format before checkpoints had a sha256
NAME = "checkpoint.pt"
BEST = "checkpoint.best.pt"
KEPT = 2
_SEAL, _HEX = b"\nsha256 ", 64
_SEAL_BYTES = len(_SEAL) + _HEX
_CHUNK = 1 << 20


class NoCheckpoint(UserError):
    """A run has no checkpoint that can be used: none was written, or all are damaged. `reason` has no advice."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; start the run again, or resume it with: suite run --resume auto")
        self.reason = reason


class _Sealing:
    """Hashes what is written. PyTorch hides why a write failed; `error` keeps it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.error = file, sha256(), None  # type: BinaryIO, Any, OSError | None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        """PyTorch calls it; the file is flushed once, at its end."""


def files(run_dir: Path) -> list[Path]:
    """The checkpoints that a run has, the newest first and the best one last: files of a single process, or folders of
    several. Both are there only where a process was killed while the one kind replaced the other.
    """
    kinds = [found for found in (files_of_one_process(run_dir), folders.found(run_dir)) if found]
    return [path for kind in sorted(kinds, key=lambda kind: kind[0].stat().st_mtime_ns, reverse=True) for path in kind]


def files_of_one_process(run_dir: Path) -> list[Path]:
    """Those that a single process wrote, the newest first and the best one last."""
    names = [NAME, *(_older(k) for k in range(1, KEPT)), BEST]
    return [path for path in (run_dir / name for name in names) if path.is_file()]


def delete_leftovers(run_dir: Path) -> None:
    """Deletes what a killed process left half written."""
    for leftover in run_dir.glob(".checkpoint*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes one checkpoint file with its seal. Raises OSError or RuntimeError."""
    with open(path, "wb") as file:
        sealing = _Sealing(file)
        try:
            torch.save({"format": FORMAT, **content}, sealing)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise sealing.error or error from None
        file.write(_SEAL + sealing.digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def save(run_dir: Path, content: dict[str, Any]) -> None:
    """Writes the run's checkpoint, keeps the ones before it, and deletes what a killed process left half written.

    Raises OSError or RuntimeError when the disk refuses; the old checkpoints are then unchanged.
    """
    delete_leftovers(run_dir)
    temporary, newest = run_dir / f".{NAME}.{os.getpid()}", run_dir / NAME
    try:
        write(temporary, content)
        for k in range(KEPT - 1, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(run_dir / _older(k - 1), run_dir / _older(k))
        if newest.exists():
            _link(newest, run_dir / _older(1))
        os.replace(temporary, newest)
    finally:
        temporary.unlink(missing_ok=True)
    if content.get("best", {}).get("step", -1) == content["step"]:
        _link(newest, run_dir / BEST)
    folders.remove(run_dir)  # of the run's earlier part, where several processes trained it


def load(run_dir: Path, device: torch.device, report: Callable[[str], None]) -> dict[str, Any]:
    """The run's newest checkpoint whose sha256 is right; `report` is called where that is not the last one written.

    Raises NoCheckpoint when there is none.
    """
    faults: list[str] = []
    for path in files(run_dir):
        try:
            content = _read(path, device)
        except UserError as error:
            faults.append(str(error))
            continue
        if faults:
            report(f"{'; '.join(faults)}; {path.name} of step {content['step']} is used instead")
        return content
    if not faults:
        raise NoCheckpoint(f"{run_dir} has no {NAME}: the run stopped before its first one")
    raise NoCheckpoint("; ".join(faults))


def _older(k: int) -> str:
    return f"checkpoint.{k}.pt"


def _link(path: Path, name: Path) -> None:
    """Gives a file another name, in one step: a reader finds the old file of that name or the new one."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, name)
    temporary.unlink(missing_ok=True)  # replacing a name of the same file leaves both


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint's content. Raises UserError where it is not what `write` wrote."""
    if path.is_dir():
        return _read_folder(path)
    try:
        sealed = _check_seal(path)
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {first_line(error)}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != (FORMAT if sealed else UNSEALED):
        raise UserError(f"{path} is damaged: it has format {found} and {'a' if sealed else 'no'} sha256")
    return content


def _read_folder(path: Path) -> dict[str, Any]:
    """The same of several processes' checkpoint, on the CPU."""
    content = _read(path / folders.CONTENT, torch.device("cpu"))
    try:
        return folders.joined(path, content)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {first_line(error)}") from None


def _check_seal(path: Path) -> bool:
    """Whether the file has a sha256 at its end. Raises UserError where that is not the one of its content."""
    digest, left = sha256(), path.stat().st_size - _SEAL_BYTES
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        seal = file.read()
    if not seal.startswith(_SEAL):
        return False
    if seal != _SEAL + digest.hexdigest().encode():
        raise UserError(f"{path} is damaged: its sha256 is not the one it was written with")
    return True


def random_state() -> dict[str, Any]:
    """The generators that training draws from (dropout and stochastic depth); the tasks' batches use none of them."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to what `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
