"""How a board writes its figures: values, ranks, differences, p values and exchange rates."""

from __future__ import annotations

from suite.boards.rows import Row
from suite.console import format_number
from suite.statistics.exchange import ExchangeRate
from tasks.base import Metric

NOTHING = "–"
UNVERIFIED = "unverified"  # FLOPs by a formula that nothing was compared with


def place(row: Row) -> str:
    """The rank of a row with its interval, or why it has none.

    Args:
        row: any row.

    Returns:
        `2`, `1–3`, or one or two words. A row with one seed cannot be distinguished from others: it shows a dash.
    """
    if row.unranked:
        return row.unranked
    rank = row.figures.rank if row.figures else None
    return str(rank) if rank else NOTHING


def value(row: Row, metric: Metric) -> str:
    """The mean with the half-width of its 95 % interval.

    Args:
        row: any row.
        metric: the board's.

    Returns:
        The text; without an interval for one seed.
    """
    percent = " %" if metric.unit == "%" else ""  # other units are in the header
    half = f" ± {format_number(metric, row.figures.half_width)}" if row.figures else ""
    return format_number(metric, row.mean) + half + percent


def difference(row: Row, metric: Metric) -> str:
    """The difference to softmax with its 95 % interval, in the metric's direction: positive where the value is larger.

    Args:
        row: any row.
        metric: the board's.

    Returns:
        `-0.123 (-0.160 to -0.086)`, or a dash.
    """
    found = signed_difference(row, metric)
    if found is None:
        return NOTHING
    estimate, low, high = (format_number(metric, each, signed=True) for each in found)
    return f"{estimate} ({low} to {high})"


def signed_difference(row: Row, metric: Metric) -> tuple[float, float, float] | None:
    """The difference to softmax and the ends of its 95 % interval.

    Args:
        row: any row.
        metric: the board's.

    Returns:
        In the metric's unit: the row's value minus that of softmax; None where they are not compared.
    """
    compared = row.figures.compared if row.figures else None
    if compared is None:
        return None
    sign = 1.0 if metric.higher_is_better else -1.0
    low, high = compared.difference.interval()
    ends = sorted((sign * low, sign * high))
    return sign * compared.difference.estimate, ends[0], ends[1]


def p_value(row: Row) -> str:
    """The adjusted p value.

    Args:
        row: any row.

    Returns:
        `.032`, `<.001`, or a dash.
    """
    compared = row.figures.compared if row.figures else None
    if compared is None:
        return NOTHING
    return small(compared.p)


def small(p: float) -> str:
    """A p value.

    Args:
        p: from 0 to 1.

    Returns:
        `.032` or `<.001`.
    """
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def exchange(row: Row) -> str:
    """What a row is worth in parameters of softmax.

    Args:
        row: any row.

    Returns:
        `1.18× (1.05 to 1.34)`, `beyond 1.5×`, `flat curve`, or a dash without a curve.
    """
    found = row.figures.exchange if row.figures else None
    return NOTHING if found is None else rate(found)


def exchange_values(row: Row) -> dict[str, float | bool | str | None] | None:
    """What a row is worth in parameters of softmax, as plain values.

    Args:
        row: any row.

    Returns:
        Estimate and ends of the interval, and where it has none, why; None without a curve.
    """
    found = row.figures.exchange if row.figures else None
    if found is None:
        return None
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "beyond": found.beyond,
        "flat": found.flat,
    }


def rate(found: ExchangeRate) -> str:
    """An exchange rate in words.

    Args:
        found: the rate.

    Returns:
        As `exchange`.
    """
    if found.flat:
        return "flat curve"
    low, high = (NOTHING if end is None else f"{end:.2f}" for end in (found.low, found.high))
    if found.estimate is None:
        return f"above the curve (from {low})" if found.beyond == "above" else f"below the curve (to {high})"
    return f"{found.estimate:.2f}× ({low} to {high})"
