"""`suite plan --check`: predicted against measured, as a table, notes, and a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from suite.cli.commands.planning.tables import Sheet, print_sheets

if TYPE_CHECKING:
    from suite.planning.check import Check, Row
    from suite.planning.rates import Rates


def print_check(check: Check, *, markdown: bool = False) -> None:
    """Prints predicted and measured time and memory, and how many predictions are good."""
    print_sheets([check_sheet(check)], check_notes(check), markdown=markdown)


def check_sheet(check: Check) -> Sheet:
    """One line per run; a calibration run has no prediction of time."""
    columns = (
        *("task · mixer", "common rates ms", "predicted ms", "measured ms", "common rates' error", "error"),
        *("predicted MB", "measured MB", "error "),
    )
    return Sheet("A training step on one thread", columns, tuple(_check_row(row) for row in check.rows))


def _check_row(row: Row) -> tuple[str, ...]:
    name = f"{row.task} · {row.mixer}" + (" (calibration)" if row.calibration else "")
    return (
        name,
        *(f"{1e3 * x:.1f}" for x in (row.common_s, row.predicted_s, row.measured_s)),
        *(f"{x:+.1%}" for x in (row.common_error, row.time_error)),
        *(f"{x / 1e6:.2f}" for x in (row.predicted_bytes, row.measured_bytes)),
        f"{row.memory_error:+.1%}",
    )


def check_notes(check: Check) -> list[str]:
    """The rates, and the number of good predictions."""
    from suite.planning.check import MEMORY, TIME

    rows = check.predicted
    time = sum(abs(row.time_error) <= TIME for row in rows)
    common = sum(abs(row.common_error) <= TIME for row in rows)
    memory = sum(abs(row.memory_error) <= MEMORY for row in rows)
    return [
        f"Common rates: {check.rates.products / 1e9:.1f} GFLOP/s, "
        f"{check.rates.traffic / 1e9:.2f} GB/s and {1e6 / check.rates.issued:.1f} µs per operation.",
        f"Of {len(rows)} other runs, {time} are within {TIME:.0%} in time ({common} by common rates) "
        f"and {memory} within {MEMORY:.0%} in memory.",
        *(f"Own rates of {mixer}: {_own_note(check.rates, own)}." for mixer, own in check.own.items()),
        *check.left_out,
    ]


def _own_note(common: Rates, own: Rates) -> str:
    """Relative to the common rates."""
    issuing = f"{own.issued / common.issued:.2f}× the operations" if isfinite(own.issued) else "operations take no time"
    return f"{own.products / common.products:.2f}× the products and traffic, {issuing}"


def check_document(check: Check) -> dict[str, Any]:
    """The comparison as plain JSON values."""
    return {
        "rates": _rates_document(check.rates),
        "own_rates": {mixer: _rates_document(rates) for mixer, rates in check.own.items()},
        "rows": [
            asdict(row)
            | {"common_error": row.common_error, "time_error": row.time_error, "memory_error": row.memory_error}
            for row in check.rows
        ],
        "left_out": list(check.left_out),
    }


def _rates_document(rates: Rates) -> dict[str, float | None]:
    """A rate is null where its work took no time that could be measured."""
    found = {"flops_per_s": rates.products, "bytes_per_s": rates.traffic, "operations_per_s": rates.issued}
    return {name: rate if isfinite(rate) else None for name, rate in found.items()}
