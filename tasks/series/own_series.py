"""A user's own series (`csv`, `--data-dir FILE|FOLDER`), with the protocol of the published ones."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from tasks.base import DataError, DataInfo, TaskOptions
from tasks.series.csv_table import SeriesTable, count_series, read_series_csv
from tasks.series.gluonts_repository import period_of, season_of
from tasks.series.options import SearchedOptions
from tasks.series.published import FileSeries, constant_columns, nearly_constant_columns
from tasks.series.tables.cells import LISTED, listed_columns
from tasks.series.tables.format import CsvFormat, Dates, Decimal, Separator, Thousands
from tasks.series.timestamps import STEPS

FORM = (
    "the file: a line of names, then one row per step; columns are separated by commas; the first holds times "
    "such as 2021-01-31 13:00:00, "
    f"without gaps, in {STEPS}; every other column holds the numbers of one series"
)
LEAST = "rows: at least (look-back + horizon) / 0.7 and about ten horizons, so 149 with --track fixed-96 --horizon 8"
WEEK = 7


class OwnSeriesOptions(SearchedOptions):
    """Options of `csv`: how the file is written, and the season, which does not follow from it."""

    season: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="steps per season, such as 24 for hourly data with a daily pattern; 0: unknown, so no MASE",
    )
    columns: tuple[str, ...] = Field(
        default=(),
        json_schema_extra={"introduced_with": []},
        description="names of the series to read, separated by commas; empty: all",
    )
    decimal: Decimal = Field(
        default="point", json_schema_extra={"introduced_with": "point"}, description="decimal sign of the numbers"
    )
    thousands: Thousands = Field(
        default="none", json_schema_extra={"introduced_with": "none"}, description="separator of thousands in numbers"
    )
    separator: Separator = Field(
        default="comma", json_schema_extra={"introduced_with": "comma"}, description="separator of the columns"
    )
    dates: Dates = Field(
        default="month-first",
        json_schema_extra={"introduced_with": "month-first"},
        description="which number is first in dates such as 01/02/2021",
    )
    constant: Literal["refuse", "keep"] = Field(
        default="refuse",
        json_schema_extra={"introduced_with": "refuse"},
        description="series that are constant in the training part: refuse, or keep them as series of scale 1",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal}; they must differ")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns names a series twice: {', '.join(self.columns)}")
        return self

    @property
    def form(self) -> CsvFormat:
        """How the file is read."""
        return CsvFormat(self.columns, self.decimal, self.thousands, self.separator, self.dates)


class OwnSeries(FileSeries):
    """A CSV file, or a folder with exactly one: a header, a column of times, one column per series; 70 / 10 / 20 %.

    The times follow a fixed step or a calendar step; windows count rows. Times with a zone are read as UTC.
    """

    name = "csv"
    options: OwnSeriesOptions
    summary = "your own series: a CSV file with a column of times and one column per series (--data-dir FILE)"
    protocol = "csv/2"
    Options: ClassVar[type[TaskOptions]] = OwnSeriesOptions
    data_decides = frozenset({"channels"})

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        super().__init__(options, data_dir)
        assert isinstance(self.options, OwnSeriesOptions)
        self.season = self.options.season

    @cached_property
    def channels(self) -> int:
        """The file's number of series; 1 if no file is given, so that a budget can be computed, which does not depend
        on it.
        """
        return 1 if self.data_dir is None else count_series(self.path, self.options.form)

    @property
    def path(self) -> Path:
        """The CSV file. Raises DataError if there is none or more than one."""
        if self.data_dir is None:
            raise DataError(
                "csv needs a series: pass --data-dir FILE.csv; to try the suite now: --task household-power"
            )
        if not self.data_dir.is_dir():
            return self.data_dir
        found = sorted(p for p in self.data_dir.iterdir() if p.suffix.lower() == ".csv")
        if len(found) != 1:
            names = f" ({', '.join(p.name for p in found[:3])})" if found else ""
            raise DataError(
                f"{self.data_dir} holds {len(found)} CSV files{names}; name one of them: --data-dir "
                f"{self.data_dir}/FILE.csv"
            )
        return found[0]

    def _check(self, table: SeriesTable) -> None:
        fitted, _, _ = self._ends(len(table.values))
        if self.options.constant == "refuse":
            flat = constant_columns(table.values[:fitted])
            self._refuse(table, flat, fitted, "constant", "with a scale of 1")
            far = nearly_constant_columns(table.values, fitted)
            self._refuse(table, far, fitted, "nearly constant, against its later values,", "with its own tiny scale")
        if self.season >= fitted:
            raise DataError(
                f"{self.path}: a season of {self.season:,} steps does not fit into the {fitted:,} of the training part"
            )

    def _refuse(self, table: SeriesTable, places: NDArray[np.int64], fitted: int, fault: str, kept: str) -> None:
        if not len(places):
            return
        names = [repr(table.columns[place]) for place in places]
        listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")
        others = [name for place, name in enumerate(table.columns) if place not in places]
        without = f"--set columns={listed_columns(others)} reads only the others; " if others else ""
        raise DataError(
            f"{self.path}: {fault} in the training part (the first {fitted:,} rows): {listed}; such a series has no "
            f"scale, and its errors would distort the mean of all; {without}--set constant=keep keeps it, {kept}"
        )

    def _read(self) -> SeriesTable:
        table = read_series_csv(self.path, self.options.form)
        self.frequency = table.frequency
        return table

    def info(self) -> DataInfo:
        split = "split 70/10/20 % in order of time"
        if self.data_dir is None:
            given = (
                "seasons: --set data.season=N, of fewer steps than the training part, gives MASE to the "
                "heads student-t and quantile"
            )
            source, notes = "your own series: pass --data-dir FILE.csv", (FORM, LEAST, split, given)
            return DataInfo(
                source=source, licence="yours", splits={}, unit="steps", fingerprint="", embedded=False, notes=notes
            )
        self.load()
        return self._describe(self.path.name, "yours", (split, *self._season_notes()))

    def _season_notes(self) -> tuple[str, ...]:
        """Suggests the usual season of this spacing, if it fits; nothing if a season is given or none is usual."""
        usual = 0 if self.season else usual_season(self.frequency)
        if usual < 2:
            return ()
        known = "no season is given" + ("; daily series usually repeat weekly" if self.frequency == "D" else "")
        fitted = self.borders[0]
        if usual >= fitted:
            return (
                f"{known}; the usual one, {usual:,} steps, does not fit into the {fitted:,} of the training "
                "part: no MASE",
            )
        mase = (
            f"{known}: --set data.season={usual} gives MASE to the heads student-t and quantile, on boards of their own"
        )
        if usual > self.options.look_back:
            return (mase,)
        return (f"{mase}; baseline/seasonal-naive takes --set mixer.season={usual} too",)


def usual_season(frequency: str) -> int:
    """Steps per season that are usual at this spacing: 7 for daily data, else GluonTS's number; 1 if none is known."""
    return WEEK if frequency == "D" else season_of(period_of(frequency))
