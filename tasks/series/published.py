"""The long-horizon data sets that the field reports, from a local folder or the hub: the splits, files and sizes of
Informer, Autoformer
and LSTNet (arXiv 2012.07436, 2106.13008, 1703.07015)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError, DataInfo, TaskOptions
from tasks.series.csv_table import SeriesTable, read_series_csv, read_series_text
from tasks.series.forecasting import ForecastTask, chronological, require_single_precision
from tasks.series.options import SearchedOptions
from tasks.storage import hub

HUB = "thuml/Time-Series-Library"
ROUNDING = 1e-12  # of sums in double precision, relative
FAR = 1_000  # deviations
MONTH = 30 * 24  # hours; months of 30 days, as is standard


class FileSeries(ForecastTask):
    """A forecasting task over a local file: read once, standardised, fingerprinted by its values."""

    Options: ClassVar[type[TaskOptions]] = SearchedOptions
    needs_data_dir = True
    _table: SeriesTable | None = None

    def load(self) -> None:
        if self._table is None:
            table = self._read()
            self.first_time, self.columns, self.uneven = table.times[0], table.columns, table.uneven
            fits = np.abs(table.values).max(0) <= np.finfo(np.float32).max  # the fingerprint is of such values
            require_single_precision(self.name, table.columns, table.values, fits)
            self._fingerprint = fingerprint_of(table)
            self._check(table)
            self._split_and_scale(table.values, self._ends(len(table.values)))
            self._table = SeriesTable(table.values[:0], table.columns, ())  # the float64 copy is no longer needed

    def _read(self) -> SeriesTable:
        raise NotImplementedError

    def _check(self, table: SeriesTable) -> None:
        """Raises DataError if the file is not the expected one."""

    def _ends(self, rows: int) -> tuple[int, int, int]:
        return chronological(rows)

    @property
    def fingerprint(self) -> str:
        self.load()
        return self._fingerprint

    def _describe(self, source: str, licence: str, notes: tuple[str, ...]) -> DataInfo:
        self.load()
        train, valid, test = self.borders
        flat = [self.columns[place] for place in np.flatnonzero(np.ptp(self.series[:train].numpy(), axis=0) == 0)]
        if flat:
            notes = (f"constant in the training part, with a scale of 1: {', '.join(flat)}", *notes)
        return DataInfo(
            source=source,
            licence=licence,
            splits={"train": train, "valid": valid - train, "test": test - valid},
            unit="steps",
            fingerprint=self.fingerprint,
            embedded=False,
            notes=("standardised with the mean and deviation of the training part", *notes),
            extra={
                "columns": len(self.columns),
                "frequency": self.frequency,
                "first_time": self.first_time,
                "uneven_steps": self.uneven,
                "windows": {split: len(view) for split, view in self._windows.items()},
            },
        )


def constant_columns(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The columns of `[N, C]` whose values differ by no more than the rounding of their sums."""
    largest = np.abs(values).max(0)
    return np.flatnonzero(values.max(0) - values.min(0) <= ROUNDING * largest)


def nearly_constant_columns(values: NDArray[np.float64], fitted: int) -> NDArray[np.int64]:
    """The columns of `[N, C]` of which a later value lies more than `FAR` deviations of the first `fitted` rows away
    from their mean: standardised, it would outweigh all others in every mean.
    """
    mean, deviation = values[:fitted].mean(0), values[:fitted].std(0)
    later = np.abs(values[fitted:] - mean).max(0, initial=0)
    return np.flatnonzero((deviation > 0) & (later > FAR * deviation))


def fingerprint_of(table: SeriesTable) -> str:
    """sha256 over the columns' names and all values in single precision; line ends, further digits and times do not
    matter.
    """
    digest = sha256("\n".join(table.columns).encode("utf-8"))
    digest.update(np.ascontiguousarray(table.values, dtype="<f4").tobytes())
    return digest.hexdigest()


class PublishedSeries(FileSeries):
    """One of the standard data sets: from `--data-dir`, a folder in the layout of the field's archives or the file
    itself; otherwise from the hub.
    """

    file: ClassVar[str]  # its place in the field's archives and on the hub
    rows: ClassVar[int]
    megabytes: ClassVar[float]  # of the file
    origin: ClassVar[str]
    licence: ClassVar[str] = "see the source; the data are not part of the suite"
    known: ClassVar[str] = ""  # the fingerprint of the standard file, if known
    on_hub: ClassVar[bool] = True
    downloads: ClassVar[Literal["run", "prepare", ""]] = "run"

    def _read(self) -> SeriesTable:
        path = self.find()
        if path is None:
            if not self.on_hub:
                raise DataError(
                    f"{self.name} needs its file: {self._wanted()} ({self.origin}); pass --data-dir DIR with it"
                )
            path = hub.fetch(HUB, self.file)
        return self._parse(path)

    def _parse(self, path: Path) -> SeriesTable:
        # the field counts rows; weather lacks a few hours, and its protocol uses the rows as they are
        return read_series_csv(path, evenly=False)

    def find(self) -> Path | None:
        """The file in the given folder; None if no folder is given. Raises DataError if the folder does not have it."""
        if self.data_dir is None:
            return None
        if self.data_dir.is_file():
            return self.data_dir
        name = PurePosixPath(self.file).name
        places = [self.data_dir / place for place in (self.file, name, f"{self.file}.gz", f"{name}.gz")]
        for place in places:
            if place.is_file():
                return place
        raise DataError(f"{self.data_dir} holds no {self._wanted()}; {self.name} comes from {self.origin}")

    def _wanted(self) -> str:
        return f"{self.file} or {PurePosixPath(self.file).name}"

    def _check(self, table: SeriesTable) -> None:
        rows, columns = table.values.shape
        if (rows, columns) != (self.rows, self.channels):
            found, needed = f"{rows:,} rows of {columns} series", f"{self.rows:,} of {self.channels}"
            raise DataError(
                f"{self.name}: the file has {found}, the published one {needed}; for your own series: --task csv"
            )
        if self.known and self._fingerprint != self.known:
            raise DataError(
                f"{self.name}: the file has the published size but other values (fingerprint "
                f"{self._fingerprint[:12]}, not "
                f"{self.known[:12]}); download it again, or use --task csv"
            )

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.load()
        if progress is not None:
            progress(self.rows, self.rows)

    def prepare_note(self) -> str:
        return (
            ""
            if self._at_hand() or not self.on_hub
            else f"{self.name}: {self.megabytes:g} MB come from the hub's {HUB}"
        )

    def _at_hand(self) -> bool:
        return (
            self._table is not None
            or self.data_dir is not None
            or (self.on_hub and hub.cached(HUB, self.file) is not None)
        )

    def info(self) -> DataInfo:
        if self._at_hand():
            return self._describe(self.origin, self.licence, self._notes())
        wanted = f"not here yet: pass --data-dir DIR with {self._wanted()}"
        fetched = (
            f"; or suite data prepare {self.name} downloads {self.megabytes:g} MB from the hub's {HUB}"
            if self.on_hub
            else ""
        )
        train, valid, test = self._ends(self.rows)
        return DataInfo(
            source=self.origin,
            licence=self.licence,
            splits={"train": train, "valid": valid - train, "test": test - valid},
            unit="steps",
            fingerprint="",
            embedded=False,
            notes=(wanted + fetched, *self._notes()),
        )

    def _notes(self) -> tuple[str, ...]:
        return ("split 70/10/20 % in order of time",)


class Ett(PublishedSeries):
    """Electricity transformers: 12 months of training, 4 of validation, 4 of test, a month being 30 days; the rest is
    not used.
    """

    channels = 7
    origin = "github.com/zhouhaoyi/ETDataset (Informer, arXiv 2012.07436)"
    licence = "CC BY-ND 4.0"
    per_hour: ClassVar[int]

    def _ends(self, rows: int) -> tuple[int, int, int]:
        month = MONTH * self.per_hour
        return 12 * month, 16 * month, 20 * month

    def _notes(self) -> tuple[str, ...]:
        return (
            "12 months train, 4 validate, 4 test, of 30 days each; the months after them are not used, as is standard",
        )


class EttHour(Ett):
    frequency, season, per_hour, rows, megabytes = "h", 24, 1, 17_420, 2.6


class EttMinute(Ett):
    frequency, season, per_hour, rows, megabytes = "15min", 96, 4, 69_680, 10.4


class Etth1(EttHour):
    name, protocol, file = "etth1", "etth1/2", "ETT-small/ETTh1.csv"
    summary = "electricity transformer 1, hourly, 7 series, 20 months"
    known = "735388d8e6dc43065af1b741fa7ea7d12e1633f259f57f22188bfc993c4fcc9c"


class Etth2(EttHour):
    name, protocol, file = "etth2", "etth2/2", "ETT-small/ETTh2.csv"
    summary = "electricity transformer 2, hourly, 7 series, 20 months"
    known = "7ac66ba65ff568b9f7ad7327ccbe62e2c993f331ae5449ddea8c0d37ebfe1399"


class Ettm1(EttMinute):
    name, protocol, file = "ettm1", "ettm1/2", "ETT-small/ETTm1.csv"
    summary = "electricity transformer 1, every 15 minutes, 7 series, 20 months"


class Ettm2(EttMinute):
    name, protocol, file = "ettm2", "ettm2/2", "ETT-small/ETTm2.csv"
    summary = "electricity transformer 2, every 15 minutes, 7 series, 20 months"


class Weather(PublishedSeries):
    name, protocol, file = "weather", "weather/2", "weather/weather.csv"
    summary = "21 meteorological series of Jena, every 10 minutes of 2020"
    channels, frequency, season, rows, megabytes = 21, "10min", 144, 52_696, 7.2
    origin = "Autoformer's archive (arXiv 2106.13008), of the Max Planck Institute for Biogeochemistry"


class Electricity(PublishedSeries):
    name, protocol, file = "electricity", "electricity/2", "electricity/electricity.csv"
    summary = "hourly consumption of 321 clients, 2012–2014"
    channels, frequency, season, rows, megabytes = 321, "h", 24, 26_304, 95.6
    origin = "Autoformer's archive (arXiv 2106.13008), of UCI's ElectricityLoadDiagrams20112014"


class Traffic(PublishedSeries):
    name, protocol, file = "traffic", "traffic/2", "traffic/traffic.csv"
    summary = "hourly occupancy of 862 freeway sensors, 2015–2016"
    channels, frequency, season, rows, megabytes = 862, "h", 24, 17_544, 136.0
    origin = "Autoformer's archive (arXiv 2106.13008), of the Californian PeMS"


class Exchange(PublishedSeries):
    name, protocol, file = "exchange", "exchange/2", "exchange_rate/exchange_rate.csv"
    summary = "daily exchange rates of 8 countries, 1990–2010"
    channels, frequency, season, rows, megabytes = 8, "D", 7, 7_588, 0.6
    origin = "Autoformer's archive (arXiv 2106.13008), of LSTNet (arXiv 1703.07015)"


class Solar(PublishedSeries):
    """LSTNet's text file: no header, no times, one row every 10 minutes of 2006."""

    name, protocol, file = "solar", "solar/2", "Solar/solar_AL.txt"
    summary = "solar power of 137 plants in Alabama, every 10 minutes of 2006"
    channels, frequency, season, rows, megabytes = 137, "10min", 144, 52_560, 30.0
    origin = (
        "LSTNet's archive github.com/laiguokun/multivariate-time-series-data, "
        "solar-energy/solar_AL.txt.gz (arXiv 1703.07015)"
    )
    on_hub = False
    downloads = ""

    def _parse(self, path: Path) -> SeriesTable:
        values: NDArray[np.float64] = read_series_text(path)
        return SeriesTable(values, tuple(f"plant {i}" for i in range(1, values.shape[1] + 1)), ("2006-01-01T00:00:00",))
