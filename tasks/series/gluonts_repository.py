"""One of GluonTS's data sets by its name in GluonTS's repository: found on disk in GluonTS's layout, or created by its
recipe.

A folder holds `NAME/metadata.json`, `NAME/train/` and `NAME/test/`, as GluonTS writes them. The default is GluonTS's
own folder, `~/.gluonts/datasets`.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tasks.base import DataError

METADATA = "metadata.json"
CALENDAR_STEP = re.compile(r"(\d*)B?([MQY])[SE](?:-[A-Z]{3})?")
#: As GluonTS yields it: target `[N]` float32, start a pandas Period, item_id if there is one.
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Repository:
    """A data set: its frequency as GluonTS writes it, its horizon, and all its series. A test series ends with the
    values to forecast.
    """

    frequency: str
    horizon: int
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 over frequency, horizon, starts and values; the files' format and compression do not matter."""
        digest = sha256(f"{self.frequency}\n{self.horizon}\n{len(self.train)}\n".encode())
        for entry in (*self.train, *self.test):
            digest.update(f"{entry['start']}\n{len(entry['target'])}\n".encode())
            digest.update(np.ascontiguousarray(entry["target"], dtype="<f4").tobytes())
        return digest.hexdigest()


def home() -> Path:
    """GluonTS's folder of data sets."""
    return Path.home() / ".gluonts" / "datasets"


def find(name: str, data_dir: Path | None) -> Path | None:
    """The data set's folder: `data_dir` itself, or the one of that name in it or in GluonTS's folder; None if there is
    none yet.
    """
    places = [home() / name] if data_dir is None else [data_dir / name, data_dir]
    return next((place for place in places if (place / METADATA).is_file()), None)


def facts(folder: Path) -> tuple[str, int]:
    """Frequency and horizon, from the metadata alone. Raises DataError."""
    try:
        content = json.loads((folder / METADATA).read_text("utf-8"))
        frequency, horizon = str(content["freq"]), int(content["prediction_length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / METADATA}: freq and prediction_length cannot be read ({type(error).__name__}); create the "
            "data set again"
        ) from error
    if horizon < 1:
        raise DataError(f"{folder / METADATA}: a prediction_length of {horizon}; at least 1 is needed")
    return frequency, horizon


def period_of(frequency: str) -> str:
    """The period of a calendar step, as GluonTS and pandas' periods name it: "M" for starts and ends of months."""
    if frequency.startswith("WOM-"):  # a weekday of each month
        return "M"
    step = CALENDAR_STEP.fullmatch(frequency)
    return f"{step[1]}{step[2]}" if step else frequency


def season_of(frequency: str) -> int:
    """Steps per season, as GluonTS counts them for MASE: 24 for an hourly series, 12 for a monthly one. Raises
    DataError.
    """
    with quiet():
        from gluonts.time_feature import get_seasonality

        try:
            return int(get_seasonality(frequency))
        except ValueError as error:
            raise DataError(f"frequency {frequency!r} is not one that pandas knows: {error}") from error


def read(folder: Path) -> Repository:
    """All series, through GluonTS. Raises DataError if files are missing or damaged, or values are missing."""
    frequency, horizon = facts(folder)
    with quiet():
        from gluonts.dataset.common import load_datasets
        from gluonts.exceptions import GluonTSDataError

        try:
            loaded = load_datasets(metadata=folder, train=folder / "train", test=folder / "test")
            train, test = tuple(loaded.train), tuple(loaded.test or ())
        except (GluonTSDataError, OSError, EOFError, ValueError, KeyError, IndexError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{folder} is not a complete GluonTS data set: {reason}; create it again") from error
    if not train or not test:
        raise DataError(f"{folder} has {len(train)} training and {len(test)} test series; both are needed")
    for part, entries in (("train", train), ("test", test)):
        for place, entry in enumerate(entries):
            if not np.isfinite(entry["target"]).all():
                without = "use a data set without missing values (some names end in _without_missing)"
                raise DataError(f"{folder}, {part} series {place + 1}: a value is missing or not finite; {without}")
    return Repository(frequency, horizon, train, test)


def make(name: str, data_dir: Path | None) -> Path:
    """Downloads a data set by GluonTS's recipe into a folder, by default GluonTS's own. Raises DataError.

    The folder appears complete or not at all, and is made once if two processes need it.
    """
    from filelock import FileLock

    with quiet():
        from gluonts.dataset.repository.datasets import dataset_names, materialize_dataset
    if name not in dataset_names:
        near = difflib.get_close_matches(name, dataset_names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; the data sets are {', '.join(sorted(dataset_names))}"
        raise DataError(f"GluonTS has no data set {name!r}{hint}")
    root = data_dir or home()
    target = root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if not (target / METADATA).is_file():
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as spare, quiet():
                    os.replace(materialize_dataset(name, path=Path(spare)), target)
    except Exception as error:  # a recipe may fail in any way: network, archive, a missing package, the disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name} could not be created by GluonTS's recipe: {reason}; or pass --data-dir DIR with {name}/"
        ) from error
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """Silences GluonTS's advice on JSON libraries, its log of spacings without a season, and pandas' warning about
    older frequency names.
    """
    logger = logging.getLogger("gluonts.time_feature.seasonality")
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using `json`-module", category=UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.disabled = was_disabled
