"""Synthetic tasks at their test size: only attention whose weights depend on the query recalls, and only mixing of
tokens keeps a state.
"""

from __future__ import annotations

import pytest

from suite.models.resolve import resolve
from suite.training.run import start

pytestmark = pytest.mark.slow

#: One difficulty, which attention solves in less than a minute; the recipes' own ladders are solved in part. Without
#: options: the recipe itself.
ALONE = {
    "mqar": ("length=64", "pairs=4", "vocab=32", "ladder=", "batch_size=64", "lr=3e-3", "steps=400"),
    "mad-in-context": ("length=32", "vocab=16", "ladder=", "batch_size=64", "lr=1e-2", "steps=300"),
    "parity": (),
    "mano": (),
}


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


def accuracies(mixer: str, task: str) -> tuple[float, float]:
    """Test accuracy over tokens and over classes of a matched run at one difficulty."""
    config = resolve(task=task, mixer=mixer, scale="board", sets=list(ALONE[task]))
    made = start(config, data_dir=None, device="cpu").record
    assert made.status == "finished", made.error
    assert made.certificate.matched
    return made.metrics["test"]["accuracy"], made.metrics["test"]["class_accuracy"]


@pytest.mark.parametrize("task", ["mqar", "mad-in-context"])
def test_softmax_recalls_nearly_every_value(task):
    assert min(accuracies("softmax", task)) >= 0.99


@pytest.mark.parametrize("mixer", ["query-free", "random-qk", "fixed-qk"])
def test_weights_that_ignore_the_query_recall_less_than_half(mixer):
    """Naming any value of the sequence is right once in four."""
    accuracy, _ = accuracies(mixer, "mqar")
    assert 0.2 < accuracy < 0.5


def test_weights_that_ignore_the_query_recall_less_than_half_in_context():
    """Naming a value of the sequence is right once in three; keys differ in how often they occurred."""
    accuracy, _ = accuracies("query-free", "mad-in-context")
    assert 0.2 < accuracy < 0.5


@pytest.mark.parametrize(("task", "guessing", "learned"), [("parity", 0.6, 0.8), ("mano", 0.25, 0.4)])
def test_softmax_learns_the_state_and_a_model_without_mixing_guesses(task, guessing, learned):
    """Running parity of up to 32 bits; expressions of 1, 2 and 4 operations modulo 7."""
    assert accuracies("no-mixing", task)[0] < guessing < learned < accuracies("softmax", task)[0]
