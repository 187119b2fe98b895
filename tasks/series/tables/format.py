"""How the cells of a CSV file are written, and which of its columns are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIGNS = {"comma": ",", "point": ".", "semicolon": ";", "tab": "\t", "space": " ", "none": ""}
Decimal = Literal["point", "comma"]
Thousands = Literal["none", "comma", "point", "space"]
Dates = Literal["month-first", "day-first"]
Separator = Literal["comma", "semicolon", "tab"]


@dataclass(frozen=True)
class CsvFormat:
    """columns: names of the series to read, in this order; empty: all. decimal, thousands, separator: names of
    characters, as in `SIGNS`. dates: which number is first in dates such as 01/02/2021.
    """

    columns: tuple[str, ...] = ()
    decimal: Decimal = "point"
    thousands: Thousands = "none"
    separator: Separator = "comma"
    dates: Dates = "month-first"

    @property
    def is_plain(self) -> bool:
        """Whether numbers are written as in program code."""
        return self.decimal == "point" and self.thousands == "none"


PLAIN = CsvFormat()
