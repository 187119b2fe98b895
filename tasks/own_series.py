"""A user's own series: `csv --data-dir FILE|FOLDER`, by the same protocol as the published ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tasks.base import DataError, DataInfo, TaskOptions
from tasks.forecast_options import SearchedOptions
from tasks.gluonts_repository import season_of
from tasks.published_series import FileSeries
from tasks.series_csv import SeriesTable, count_columns, read_series_csv


class OwnSeriesOptions(SearchedOptions):
    """Options of `csv`: a file tells its spacing, not what repeats in it."""

    season: int = Field(default=0, ge=0, le=100_000, description="steps that repeat, 24 for hours of a day; 0: not known, so no MASE")


class OwnSeries(FileSeries):
    """A CSV file, or a folder with exactly one: a header, a column of evenly spaced times, then one column a series; 70 / 10 / 20 %.

    Times with a zone are told in UTC.
    """

    name = "csv"
    summary = "your own series: a CSV file with a column of times and one column a series (--data-dir FILE)"
    protocol = "csv/2"
    Options: ClassVar[type[TaskOptions]] = OwnSeriesOptions

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        super().__init__(options, data_dir)
        assert isinstance(self.options, OwnSeriesOptions)
        self.season = self.options.season

    @cached_property
    def channels(self) -> int:
        """Of the file; 1 where none is given yet, so that a budget can be counted: it does not depend on the number of series."""
        return 1 if self.data_dir is None else count_columns(self.path)

    @property
    def path(self) -> Path:
        """The CSV file. Raises DataError where there is none or more than one."""
        if self.data_dir is None:
            raise DataError("csv needs a series: pass --data-dir FILE.csv; to try the suite now: --task household-power")
        if not self.data_dir.is_dir():
            return self.data_dir
        found = sorted(p for p in self.data_dir.iterdir() if p.suffix.lower() == ".csv")
        if len(found) != 1:
            names = f" ({', '.join(p.name for p in found[:3])})" if found else ""
            raise DataError(f"{self.data_dir} holds {len(found)} CSV files{names}; name the one: --data-dir {self.data_dir}/FILE.csv")
        return found[0]

    def _check(self, table: SeriesTable) -> None:
        fitted, _, _ = self._ends(len(table.values))
        if self.season >= fitted:
            raise DataError(f"{self.path}: a season of {self.season:,} steps does not fit into the {fitted:,} of the training part")

    def _read(self) -> SeriesTable:
        table = read_series_csv(self.path)
        self.frequency = frequency_of(table)
        return table

    def info(self) -> DataInfo:
        notes = ("split 70/10/20 % in order of time",)
        if self.data_dir is None:
            what = "your own series: pass --data-dir FILE.csv, a column of evenly spaced times, then one column a series"
            return DataInfo(source=what, licence="yours", splits={}, unit="steps", fingerprint="", embedded=False, notes=notes)
        made = self._describe(self.path.name, "yours", notes)
        usual = season_of(self.frequency)
        if self.season or usual < 2:
            return made
        mase = f"no season is given: --set data.season={usual} gives MASE to the heads student-t and quantile, on boards of their own"
        return replace(made, notes=(*made.notes, f"{mase}; baseline/seasonal-naive takes --set mixer.season={usual} too"))


def frequency_of(table: SeriesTable) -> str:
    """The spacing of the times as pandas writes it: "h", "15min", "D"."""
    import pandas as pd

    to_offset: Any = pd.tseries.frequencies.to_offset  # its stubs know no time differences
    return str(to_offset(pd.Timestamp(table.times[1]) - pd.Timestamp(table.times[0])).freqstr)
