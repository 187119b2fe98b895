"""`suite doctor`: checks of the installation, the runs folder, the records and the tracking store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json
from suite.console import marked
from suite.errors import UserError, first_line

LOW_DISK_BYTES = 2 * 2**30
_STORE = "Check only the tracking store: schema version, indexes, connection limits, write permission, artifacts."


@dataclass(frozen=True)
class Check:
    """The result of one check; its fields are those of `suite doctor --json`. The message has one line per fault."""

    name: str
    ok: bool
    message: str


def doctor(
    store: Annotated[bool, typer.Option("--store", help=_STORE)] = False,
    as_json: opt.Json = False,
) -> None:
    """Checks the installation, the runs folder, the records and the tracking store; closes tracked runs whose process
    has died. Exit code 1 if a check fails.

    `suite doctor`
    `suite doctor --store`
    """
    found = store_checks() if store else run_checks()
    print_json([asdict(check) for check in found]) if as_json else print_checks(found)
    raise typer.Exit(0 if all(check.ok for check in found) else 1)


def run_checks() -> list[Check]:
    checks: tuple[Callable[[], Check], ...] = (
        _check_packages,
        _check_hardware,
        _check_kernels,
        _check_runs_folder,
        _check_rescued_records,
        _check_records,
        _check_store,
    )
    return [check() for check in checks]


def store_checks() -> list[Check]:
    """The checks of the tracking store alone; they need neither runs nor records."""
    from suite.records import runs_folder
    from suite.tracking.checks.store_checks import check_store

    return [Check(found.name, found.ok, found.message) for found in check_store(runs_folder.home())]


def print_checks(found: Sequence[Check]) -> None:
    for check in found:
        mark = "[green]ok[/]  " if check.ok else "[red]bad[/] "
        first, *more = check.message.splitlines() or [""]
        out.print(marked(f"{mark} [bold]{{}}[/]: {{}}", check.name, first))
        for line in more:
            out.print(marked("     {}", line))


def _check_packages() -> Check:
    from suite.records import provenance

    versions = provenance.packages()
    ok = "not installed" not in versions.values() and sys.version_info >= (3, 11)
    return Check("packages", ok, ", ".join(f"{name} {version}" for name, version in versions.items()))


def _check_hardware() -> Check:
    import torch

    from suite.records import provenance

    hardware = provenance.hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    machine = f"{hardware.processor}, {hardware.cores} cores, {hardware.memory_bytes / 2**30:.0f} GB"
    return Check("hardware", True, f"{machine}; runs use {hardware.device}, {hardware.threads} threads")


def _check_kernels() -> Check:
    import torch

    from backbones.implementations import implementations

    return Check("kernels", True, f"on the CPU: {implementations(torch.device('cpu'))['cpu']}")


def _check_runs_folder() -> Check:
    import shutil

    from suite.records import runs_folder

    try:
        folder = runs_folder.writable_home()
    except UserError as error:
        return Check("runs folder", False, str(error))
    free = shutil.disk_usage(folder).free
    return Check("runs folder", free > LOW_DISK_BYTES, f"{folder}, {free / 2**30:.1f} GB free")


def _check_rescued_records() -> Check:
    from suite.records import rescued

    moved, left = rescued.move_back()
    done = f"moved back {len(moved)} record(s) from temporary folders: {', '.join(moved)}" if moved else "none is left"
    return Check("rescued records", not left, "; ".join(left) or done)


def _check_records() -> Check:
    from suite.records.collection import read_all

    found = read_all()
    faults = "\n".join(refused.reason for refused in found.refused)
    return Check("records", not found.refused, faults or f"{len(found.records)} read, each agrees with its config")


def _check_store() -> Check:
    from suite.records import runs_folder
    from suite.tracking import backlog
    from suite.tracking.publishing import close_dead_runs

    backlog.send_in_background(runs_folder.home())
    try:
        closed = close_dead_runs(runs_folder.home())
    except Exception as error:  # whatever the store's client raises is a result of this check
        return Check("tracking store", False, f"{type(error).__name__}: {first_line(error)}")
    message = (
        f"closed {len(closed)} run(s) of dead processes: {', '.join(closed)}" if closed else "reachable; no dead runs"
    )
    return Check("tracking store", True, message)
