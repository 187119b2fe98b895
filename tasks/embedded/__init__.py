"""The small real data sets that ship with the suite: xz files made by `build.py`, checked against recorded hashes."""

from __future__ import annotations

import io
import json
import lzma
from hashlib import sha256
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError

FINGERPRINTS = "fingerprints.json"
FILES = {
    "sotu": "sotu.json.xz",
    "fashion-mnist": "fashion-mnist.npz.xz",
    "household-power": "household-power.npz.xz",
}


def fingerprint(name: str) -> str:
    """The recorded sha256 (hex) of the decompressed content of an embedded data set."""
    recorded = json.loads((files(__package__) / FINGERPRINTS).read_text(encoding="utf-8"))
    return str(recorded[name]["sha256"])


def read(name: str) -> bytes:
    """The decompressed content of an embedded data set. Raises DataError if it is missing, damaged or changed.

    The hash is that of the content, not of the xz file, whose bytes may differ between versions of liblzma.
    """
    try:
        content = lzma.decompress((files(__package__) / FILES[name]).read_bytes())
        expected = fingerprint(name)
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError) as error:
        raise DataError(
            f"{name}: the embedded file {FILES[name]} is missing or damaged ({error}); reinstall the suite"
        ) from error
    found = sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{name}: the content of the embedded file {FILES[name]} has changed (sha256 {found[:12]}…, expected "
            f"{expected[:12]}…); reinstall the suite"
        )
    return content


def read_arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of an embedded `.npz.xz`, read without pickle."""
    with np.load(io.BytesIO(read(name)), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
