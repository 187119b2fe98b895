"""Whether the figures of test units agree with the test figure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from suite.records.schema import Record

#: Relative; sums are stored with 10 digits.
TOLERANCE = 1e-6


def unit_faults(record: Record) -> Iterator[str]:
    """What contradicts the figures of a record's test units. How they are spread over the units is what the run
    measured.

    Args:
        record: a record that has some.

    Yields:
        One line per fault, beginning with the field's dotted name.
    """
    units, name = record.test_units, record.primary_metric
    assert units is not None
    figure, tested = record.metrics.get("test", {}).get(name), record.n_evaluated.get("test", 0)
    if figure is None:
        yield f"test_units: they have figures, but the record has no test {name}"
        return
    if len(units.sums) != len(units.counts) or len(units.sums) > tested:
        yield (
            f"test_units: {len(units.sums)} sums and {len(units.counts)} counts of {tested} tested examples are "
            "recorded"
        )
        return
    size = sum(units.counts)
    if not size:
        yield "test_units.counts: nothing is counted"
        return
    if record.higher_is_better and any(total > count for total, count in zip(units.sums, units.counts, strict=True)):
        yield "test_units.sums: an accuracy is more than 1"
    if record.domain == "vision" and size != tested:
        yield f"test_units.counts: {size:g} images are counted, {tested} were tested"
    derived = sum(units.sums) / size
    if not math.isclose(figure, derived, rel_tol=TOLERANCE, abs_tol=1e-12):
        yield f"metrics.test.{name}: {figure!r} is recorded, {derived!r} follows from test_units"
