"""The documented roofline is the one that the registered work gives."""

from __future__ import annotations

from pathlib import Path

from kernels.registry import KERNELS
from kernels.tools import roofline
from kernels.work import RATES

DOCUMENT = Path(__file__).parents[2] / "docs" / "kernels.md"


def test_the_documented_table_is_up_to_date() -> None:
    table = DOCUMENT.read_text("utf-8").partition(roofline.BEGIN)[2].partition(roofline.END)[0]
    assert table.strip() == roofline.table(), "run: python -m kernels.tools.roofline --write docs/kernels.md"


def test_every_estimate_is_a_positive_amount_of_known_kinds() -> None:
    rows = list(roofline.all_work())
    assert len(rows) == 2 * sum(kernel.work is not None for kernel in KERNELS)
    for call, part, work in rows:
        assert part in ("forward", "backward")
        assert set(work) <= set(RATES), call
        assert all(amount > 0 for amount in work.values()), call
