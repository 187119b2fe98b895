"""Runs that diverge, fail or find damaged data have a record that says why."""

from __future__ import annotations

import pytest

from suite.boards import board
from suite.records import record
from suite.records.collection import read_all
from suite.records.schema import Record
from suite.training.run import resume
from tasks.base import DataError
from tests.suite.tiny import TASKS, tiny_arguments
from tests.suite.training.run_helpers import at_step, run


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_diverges_reports_it_and_has_a_record(suite, runs, task):
    ended = suite(*tiny_arguments(task, "softmax", "lr=1e30", "clip=1e30"), "--json")
    made = Record.model_validate_json(ended.out)
    assert ended.code == 1
    assert (made.status, made.selection, made.timing) == ("diverged", None, None)
    assert made.error is not None
    assert "not finite at step" in made.error
    assert "--set lr=" in made.error
    assert f"diverged: {made.error}" in ended.err
    assert [step for step, _ in made.loss_trace][:1] == [1]
    assert record.read(runs / made.id / record.NAME) == made
    [row] = [row for b in board.boards(read_all().records) for row in b.rows]
    assert row.diverged == {made.seed: made.error}  # it counts with the untrained model's figure


def test_a_diverged_run_has_the_figures_of_its_untrained_model():
    """Boards count a diverged seed with them, so it can neither be dropped nor be better than no training."""
    diverged = run("sotu", "softmax", "lr=1e30", "clip=1e30").record
    untrained = run("sotu", "softmax", "lr=1e-30").record  # no step changes its weights
    assert set(diverged.metrics) == {"valid", "test"}
    for split, values in diverged.metrics.items():
        assert values == pytest.approx(untrained.metrics[split], rel=1e-5)
        assert diverged.n_evaluated[split] == untrained.n_evaluated[split]


def test_weights_that_the_last_step_ruins_are_never_selected():
    """Top-1 of logits that are all NaN is finite."""
    made = run("fashion-mnist", "softmax", "steps=1", "evals=1", "warmup=0", "lr=1e37").record
    assert made.status == "diverged"
    assert made.error is not None
    assert "validation loss is not finite" in made.error


def test_an_exception_in_the_loop_has_a_record_and_a_full_traceback(suite, monkeypatch, runs):
    def fail():
        raise RuntimeError("shape '[/7, 3]' is wrong\nand more of it")

    with monkeypatch.context() as patch:
        at_step(patch, 3, fail)
        ended = suite(*tiny_arguments("fashion-mnist"))
    [folder] = runs.iterdir()
    made = record.read(folder / record.NAME)
    assert ended.code == 1
    assert made.status == "failed"
    assert made.error is not None
    assert made.error.startswith("RuntimeError: shape '[/7, 3]' is wrong (")
    assert "traceback.txt" in made.error
    assert f"suite run --resume {folder.name}" in ended.err
    assert "shape '[/7, 3]' is wrong" in ended.err
    assert "Traceback" not in ended.err
    assert "in fail" in (folder / "traceback.txt").read_text()
    assert [step for step, _ in made.loss_trace] == [1, 2, 3]
    resumed = resume(folder.name, data_dir=None, device="cpu")
    assert (resumed.record.status, resumed.record.resumed_at) == ("finished", [2])


def test_data_that_are_damaged_in_the_middle_fail_the_run_in_one_line(suite, monkeypatch, runs):
    def fail():
        raise DataError("image 7 is damaged")

    at_step(monkeypatch, 3, fail)
    ended = suite(*tiny_arguments("fashion-mnist"))
    [folder] = runs.iterdir()
    assert ended.code == 1
    assert record.read(folder / record.NAME).error == "image 7 is damaged"
    assert not (folder / "traceback.txt").exists()
