"""mqar at its test size, trained through the suite: attention that looks tokens up solves it, attention that cannot does not."""

from __future__ import annotations

import pytest

from suite.resolve import resolve
from suite.run import start

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


def accuracy(mixer: str) -> float:
    """The test accuracy of a matched run with the shipped recipe, the same for every mixer."""
    made = start(resolve(task="mqar", mixer=mixer, scale="board"), data_dir=None, device="cpu").record
    assert made.status == "finished", made.error
    assert made.certificate["matched"]
    return made.metrics["test"]["accuracy"]


def test_softmax_recalls_nearly_every_value():
    assert accuracy("softmax") >= 0.99


@pytest.mark.parametrize("mixer", ["query-free", "random-qk", "fixed-qk"])
def test_weights_that_ignore_the_query_recall_less_than_half(mixer):
    """One value in four is what naming any value of the sequence gives."""
    assert 0.2 < accuracy(mixer) < 0.5
