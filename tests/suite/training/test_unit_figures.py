"""What a run records of its test units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tasks
from suite.training.evaluate import UnitTally, evaluate
from tests.tasks.planted_errors import SMALL, UnitsOfAnotherMetric


class ByLastByte(torch.nn.Module):
    """Logits that depend on the byte before."""

    def forward(self, tokens_BT):
        table = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
        return table[tokens_BT]


@pytest.mark.parametrize("limit", [0, 50])
def test_the_addresses_of_sotu_give_its_figure_which_they_do_not_change(limit):
    cls = tasks.get("sotu")
    task = cls(cls.Options(test_limit=limit))  # type: ignore[call-arg]
    task.load()
    warned = list[str]()
    tally = UnitTally(task, warned.append)
    common = {"batch_size": 64, "device": torch.device("cpu"), "precision": "fp32"}
    metrics, _ = evaluate(ByLastByte(), task, "test", **common, tally=tally)  # type: ignore[arg-type]
    assert metrics == evaluate(ByLastByte(), task, "test", **common)[0]  # type: ignore[arg-type]
    units = tally.recorded(metrics["bits_per_byte"])
    assert units is not None
    assert units.word == "addresses"
    assert sum(units.sums) / sum(units.counts) == pytest.approx(metrics["bits_per_byte"], rel=1e-8)
    if not limit:
        assert units.counts == [float(len(address)) for address in task.addresses["test"]]  # type: ignore[attr-defined]
    assert warned == []


def test_figures_that_do_not_give_the_metric_are_not_recorded_and_warned_of():
    task = UnitsOfAnotherMetric(SMALL)
    task.load()
    warned = list[str]()
    tally = UnitTally(task, warned.append)
    for batch in task.eval_batches("test", 32):
        tally.add(torch.zeros(batch.size, 1), batch)
    assert tally.recorded(0.25) is None
    assert len(warned) == 1
    assert "they give" in warned[0]


def test_more_units_than_a_record_holds_are_in_equal_random_groups():
    task = tasks.get("fashion-mnist")()
    task.load()
    units = task.test_units()
    assert units is not None
    assert set(np.bincount(units.of_example)) == {15, 16}
