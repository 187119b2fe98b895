"""Any data set of GluonTS's repository, with GluonTS's protocol: many series, one forecast window at the end of each
test series.

GluonTS's splitter cuts them: the last `horizon` steps of each training series validate, all earlier ones train, and the
last `horizon` steps of each test series are forecast. Every series is standardised by its own training steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Batch, DataError, DataInfo, Metric, SampledUnits, Split, TaskOptions
from tasks.randomness import evenly_spread
from tasks.series import gluonts_repository, scores
from tasks.series.forecasting import ForecastTask, require_single_precision
from tasks.series.gluonts_repository import Entry, Repository
from tasks.series.options import RepositoryOptions
from tasks.units import grouped

LICENCE = "see GluonTS's recipe; the data are not part of the suite"
UNKNOWN_HORIZON = 24  # while there are no data: it sizes the head, which no budget counts


@dataclass(frozen=True)
class SeriesBatch(Batch):
    """`series_B`: the series of each window."""

    series_B: Tensor

    def to(self, device: Any) -> SeriesBatch:
        moved = super().to(device)
        return SeriesBatch(moved.inputs, moved.targets, self.series_B)


class GluontsSeries(ForecastTask):
    name = "gluonts"
    domain = "forecasting"
    summary = "any data set of GluonTS's repository, by its name there (--set dataset=m4_hourly)"
    protocol = "gluonts/2"
    Options: ClassVar[type[TaskOptions]] = RepositoryOptions
    options: RepositoryOptions
    needs_data_dir = True
    downloads = "prepare"
    channels = 1
    data_decides = frozenset({"horizon", "season"})
    _facts: tuple[str, int] | None = None
    _fingerprint = ""
    _units: tuple[Tensor, ...]  # of each series: scale, shift, and seasonal error in standardised values

    @property
    def horizon(self) -> int:
        """The data set's own; while there are no data, the requested one or a placeholder."""
        self._know()
        return self._facts[1] if self._facts else self.options.horizon or UNKNOWN_HORIZON

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return scores.metrics(self.options.head, scaled=True, original=True)

    def _know(self) -> None:
        """Reads the metadata if they are there. Raises DataError if another horizon was requested."""
        folder = None if self._facts else gluonts_repository.find(self.options.dataset, self.data_dir)
        if folder is None:
            return
        self._facts = gluonts_repository.facts(folder)
        self.frequency, own = self._facts
        self.season = gluonts_repository.season_of(self.frequency)
        if self.options.horizon not in (0, own):
            raise DataError(
                f"{self.options.dataset} is published with a horizon of {own}, not {self.options.horizon}; "
                "leave --horizon out"
            )

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        if gluonts_repository.find(self.options.dataset, self.data_dir) is None:
            gluonts_repository.make(self.options.dataset, self.data_dir)
        self.load()

    def load(self) -> None:
        if self._fingerprint:
            return
        folder = gluonts_repository.find(self.options.dataset, self.data_dir)
        if folder is None:
            name, place = self.options.dataset, self.data_dir or gluonts_repository.home()
            raise DataError(f"{place} holds no {name}/{gluonts_repository.METADATA}; {_download(name)}")
        self._know()
        data = gluonts_repository.read(folder)
        self.first_time = str(min(entry["start"] for entry in data.train))
        self._cut(data)
        self._fingerprint = data.fingerprint

    def _cut(self, data: Repository) -> None:
        """Standardised windows of the three parts, and the units of each series."""
        from gluonts.dataset.split import split as cut

        H = self.horizon
        long = [i for i, entry in enumerate(data.train) if len(entry["target"]) > H]
        if not long:
            raise DataError(
                f"{self.options.dataset}: no training series is longer than the horizon of {H}, so none can validate"
            )
        fitted, held_out = cut([data.train[i] for i in long], offset=-H)
        parts = {i: entry["target"].astype(np.float64) for i, entry in zip(long, fitted, strict=True)}
        known = [parts.get(i, entry["target"].astype(np.float64)) for i, entry in enumerate(data.train)]
        self.mean, self.std = np.array([part.mean() for part in known]), np.array([part.std() for part in known])
        self.std[[bool(np.ptp(part) == 0) for part in known]] = 1.0
        errors = [_seasonal_error(entry["target"].astype(np.float64), self.season) for entry in data.train]
        largest = np.array([[np.abs(part).max(initial=0.0) for part in known]])
        fits = np.isfinite(self.std) & (largest[0] <= np.finfo(np.float32).max)
        require_single_precision(self.options.dataset, (), largest, fits)
        self._units = tuple(torch.from_numpy(values) for values in (self.std, self.mean, np.array(errors) / self.std))
        self._hold_training({i: (part - self.mean[i]) / self.std[i] for i, part in parts.items()})
        _, template = cut(data.test, offset=-H)
        self.owners = {"valid": np.array(long), "test": _owners(data, self.options.dataset)}
        self._hold_windows("valid", held_out.generate_instances(prediction_length=H))
        self._hold_windows("test", template.generate_instances(prediction_length=H))
        limits: dict[Split, int] = {"valid": self.options.valid_limit, "test": self.options.test_limit}
        self._scored = {split: evenly_spread(len(self._windows[split]), limit) for split, limit in limits.items()}
        self._scored["train"] = np.arange(len(self._starts))

    def _hold_training(self, parts: dict[int, NDArray[np.float64]]) -> None:
        """All windows of all series as views of one array, one series after the other; `_starts`: the windows that do
        not span two series.
        """
        length = self.options.look_back + self.horizon
        whole = [_extended(part, length) for part in parts.values()]
        self.extended = sum(len(part) < length for part in parts.values())
        ends = np.cumsum([len(part) for part in whole])
        self._starts = np.concatenate(
            [np.arange(end - len(part), end - length + 1) for part, end in zip(whole, ends, strict=True)]
        )
        owners = np.array(list(parts))
        self._start_owners = owners[np.searchsorted(ends, self._starts, side="right")]
        self.series = torch.from_numpy(np.concatenate(whole).astype(np.float32))
        self._windows = {"train": self.series.unfold(0, length, 1).unsqueeze(-1)}

    def _hold_windows(self, split: Split, pairs: Iterable[tuple[Entry, Entry]]) -> None:
        """The look-back and the forecast of each pair that GluonTS's splitter yields; its history may be longer or
        shorter than the look-back.
        """
        L, owners = self.options.look_back, self.owners[split]
        rows = [
            (np.concatenate([_extended(history["target"].astype(np.float64)[-L:], L), label["target"]]) - self.mean[i])
            / self.std[i]
            for i, (history, label) in zip(owners, pairs, strict=True)
        ]
        self._windows[split] = torch.from_numpy(np.stack(rows).astype(np.float32)).unsqueeze(-1)

    def _batch(self, split: Split, index: NDArray[np.int64]) -> Batch:
        places = self._starts[index] if split == "train" else index
        owners = self._start_owners[index] if split == "train" else self.owners[split][index]
        window = self._windows[split][torch.from_numpy(places)]
        L = self.options.look_back
        return SeriesBatch(window[:, :L], window[:, L:], torch.from_numpy(owners))

    def test_units(self) -> SampledUnits | None:
        self.load()
        return grouped("series", self.owners["test"][self._scored["test"]])

    def units(self, batch: Batch) -> scores.Units:
        """Those of the original values: GluonTS computes CRPS on them."""
        assert isinstance(batch, SeriesBatch)
        scale, shift, season = (
            values[batch.series_B].view(-1, 1, 1).to(batch.targets.device) for values in self._units
        )
        return scores.Units(season, scale, shift)

    def original_units(self, batch: Batch) -> tuple[Tensor, Tensor]:
        units = self.units(batch)
        return torch.as_tensor(units.scale), torch.as_tensor(units.shift)

    def series_of(self, batch: Batch) -> Tensor:
        assert isinstance(batch, SeriesBatch)
        return batch.series_B.view(-1, 1)

    @property
    def fingerprint(self) -> str:
        self.load()
        return self._fingerprint

    def info(self) -> DataInfo:
        name = self.options.dataset
        source = f"GluonTS's repository, {name} (gluonts.dataset.repository)"
        notes: tuple[str, ...] = (
            "the last horizon of each training series validates; of each test series the last horizon is forecast",
            "each series standardised with the mean and deviation of its training steps",
        )
        if gluonts_repository.find(name, self.data_dir) is None:
            return DataInfo(
                source, LICENCE, {}, "windows", "", embedded=False, notes=(f"not here yet: {_download(name)}", *notes)
            )
        self.load()
        if self.extended:
            notes += (
                f"{self.extended:,} series, shorter than a training window, are extended backwards with "
                "their first value",
            )
        return DataInfo(
            source=source,
            licence=LICENCE,
            unit="windows",
            fingerprint=self.fingerprint,
            embedded=False,
            notes=notes,
            splits={"train": len(self._starts), **{split: len(owners) for split, owners in self.owners.items()}},
            extra={
                "series": len(self.mean),
                "frequency": self.frequency,
                "season": self.season,
                "horizon": self.horizon,
            },
        )


def _download(name: str) -> str:
    return (
        f"suite data prepare gluonts --set dataset={name} has GluonTS download it; or pass --data-dir DIR with {name}/"
    )


def _seasonal_error(values: NDArray[np.float64], season: int) -> float:
    """Mean |x_t − x_{t − season}| of a whole training series; for a series shorter than a season, of consecutive steps,
    as in GluonTS.
    """
    lag = season if season < len(values) else 1
    return float(np.abs(values[lag:] - values[:-lag]).mean()) if len(values) > 1 else 0.0


def _extended(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """At least `length` steps: a shorter series is extended backwards with its first value."""
    missing = max(length - len(values), 0)
    return np.concatenate([np.full(missing, values[0]), values])


def _owners(data: Repository, name: str) -> NDArray[np.int64]:
    """The training series that each test series continues: that of its item_id, or of its position (rolling windows
    repeat the positions).
    """
    places = {str(entry["item_id"]): i for i, entry in enumerate(data.train) if "item_id" in entry}
    found = []
    for place, entry in enumerate(data.test):
        if len(entry["target"]) <= data.horizon:
            raise DataError(
                f"{name}: test series {place + 1} has {len(entry['target'])} steps; more than the horizon of "
                f"{data.horizon} are needed"
            )
        candidates = (places.get(str(entry.get("item_id"))), place % len(data.train))
        fitting = [i for i in candidates if i is not None and _continues(data.train[i], entry)]
        if not fitting:
            raise DataError(
                f"{name}: test series {place + 1} continues no training series of its item_id or position; "
                "create the data set again"
            )
        if len(entry["target"]) < len(data.train[fitting[0]]["target"]) + data.horizon:
            raise DataError(
                f"{name}: test series {place + 1} ends less than a horizon after its training series, so its "
                "labels would be trained on; "
                "the test series must continue the training series"
            )
        found.append(fitting[0])
    return np.array(found)


def _continues(train: Entry, test: Entry) -> bool:
    shared = min(len(train["target"]), len(test["target"]))
    return bool(train["start"] == test["start"] and np.array_equal(train["target"][:shared], test["target"][:shared]))
