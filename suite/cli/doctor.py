"""`suite doctor`: is the installation whole, can runs be written, does the store answer, did runs die."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from suite.boards import board
from suite.errors import UserError
from suite.records import provenance, record, runs_folder
from suite.tracking.store import close_dead_runs

LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    message: str

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def _python() -> Check:
    shown = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    missing = [name for name, version in provenance.versions().items() if version == "not installed"]
    return Check("packages", not missing and sys.version_info >= (3, 11), shown)


def _device() -> Check:
    hardware = provenance.hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    machine = f"{hardware.processor}, {hardware.cores} cores, {hardware.memory_bytes / 2**30:.0f} GB"
    return Check("hardware", True, f"{machine}; runs use {hardware.device}, {hardware.threads} threads")


def _folder() -> Check:
    try:
        folder = runs_folder.writable_home()
    except UserError as error:
        return Check("runs folder", False, str(error))
    free = shutil.disk_usage(folder).free
    return Check("runs folder", free > LOW_DISK_BYTES, f"{folder}, {free / 2**30:.1f} GB free")


def _records() -> Check:
    bad, count = list[str](), 0
    for path in sorted(runs_folder.home().glob(f"*/{record.NAME}")):
        count += 1
        try:
            made = record.read(path)
            if not board.is_known(made):
                bad.append(f"{path} was written by another version (task {made.task}, scale {made.scale})")
        except record.RecordError as error:
            bad.append(str(error))
    return Check("records", not bad, "; ".join(bad) if bad else f"{count} read, all hashes hold")


def _store() -> Check:
    try:
        closed = close_dead_runs(runs_folder.home())
    except Exception as error:  # whatever the store's client raises, the doctor reports it
        return Check("tracking store", False, f"{type(error).__name__}: {str(error).splitlines()[0]}")
    message = (
        f"closed {len(closed)} run(s) of dead processes: {', '.join(closed)}" if closed else "answers; no dead runs"
    )
    return Check("tracking store", True, message)


def examine() -> list[Check]:
    checks: tuple[Callable[[], Check], ...] = (_python, _device, _folder, _records, _store)
    return [check() for check in checks]
