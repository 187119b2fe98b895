"""Outcomes of the mixer contract, kept in the runs folder, so that records of later runs say whether it was checked."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from filelock import FileLock

from suite.records import runs_folder
from suite.records.schema import Contract
from tasks.storage.cache import write_atomically

NAME = "contracts.json"
MOST = 1000  # outcomes that are kept, the latest ones


def keep(mixer: str, origin: str, contract: Contract, *, whole: bool) -> None:
    """Keeps an outcome for this code of a mixer. Where nothing can be written, nothing is kept; nor of a package, whose
    files may change under one version. The fast checks alone do not make up for a failure.

    Args:
        mixer: a registered name or `path/file.py:Class`.
        origin: where its code comes from, with the hash of a file.
        contract: the outcome.
        whole: whether the slow checks were among them.
    """
    if "@" not in origin:
        return
    before = known(mixer, origin)
    if before and not before.checked and before.version == contract.version and not whole:
        return
    folder = runs_folder.home()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder / f".{NAME}.lock")):
            held = _read()
            held.pop(_key(mixer, origin), None)
            held = dict(list(held.items())[-MOST + 1 :]) | {_key(mixer, origin): contract.model_dump(mode="json")}
            write_atomically(folder / NAME, lambda path: path.write_text(json.dumps(held, indent=1), "utf-8"))


def known(mixer: str, origin: str) -> Contract | None:
    """The last outcome for this code of a mixer.

    Args:
        mixer: as for `keep`.
        origin: as for `keep`.

    Returns:
        None where it was not checked here.
    """
    try:
        return Contract.model_validate(_read()[_key(mixer, origin)])
    except (KeyError, ValueError):
        return None


def _key(mixer: str, origin: str) -> str:
    return f"{mixer.rpartition(':')[2]} of {origin}"


def _read() -> dict[str, Any]:
    try:
        held = json.loads((runs_folder.home() / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}
