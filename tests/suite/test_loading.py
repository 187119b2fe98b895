"""Loading trained models: the page of the documentation is executed, and what `load` predicts is what was recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from suite.errors import UserError
from suite.loading import load
from suite.training.run import start
from tasks.base import TextTask
from tests.suite.tiny import TASKS, tiny_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trained-models.md"


@pytest.fixture
def trained(monkeypatch):
    """The records of a tiny run of each domain, by task."""
    monkeypatch.setenv("SUITE_TRACKING", "off")
    return {task: start(tiny_config(task, "fem"), data_dir=None, device="cpu").record for task in TASKS}


@pytest.mark.slow
def test_the_page_on_trained_models_runs_and_its_models_give_the_recorded_figures(trained, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 4
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # as a reader would run it
    assert "top1" in capsys.readouterr().out
    for task, record in trained.items():
        found = load(record.id, device="cpu")
        assert (found.config.identity, found.step) == (record.identity, record.selection.step)
        sums: dict[str, list[float]] = {}
        for batch in found.task.eval_batches("test", found.config.train.eval_batch_size):
            for name, pair in found.task.measure(found.predict(batch.inputs), batch).items():
                sums[name] = [a + b for a, b in zip(sums.get(name, (0.0, 0.0)), pair, strict=True)]
        figures = found.task.summarise({name: (a, b) for name, (a, b) in sums.items()})
        assert figures[record.primary_metric] == pytest.approx(
            record.metrics["test"][record.primary_metric], rel=1e-6
        ), task
        assert not found.model.training


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["random-qk", "fixed-qk"])
def test_a_model_with_a_constant_sequence_is_loaded_without_data(monkeypatch, mixer):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    made = start(tiny_config("sotu", mixer, "steps=2", "evals=1"), data_dir=None, device="cpu").record
    with_data, without = load(made.id), load("latest", with_data=False)
    assert isinstance(without.task, TextTask)
    ids = torch.tensor([without.task.encode("The Union")])
    assert torch.equal(with_data.predict(ids), without.predict(ids))


def test_a_run_of_another_kind_or_without_weights_is_refused_in_one_line(runs):
    from suite.records import runs_folder

    runs_folder.new_run(tiny_config("fashion-mnist"), None)
    with pytest.raises(UserError, match=r"is of task 'fashion-mnist' .*; choose another"):
        load("latest", check=lambda task: "choose another")
    with pytest.raises(UserError, match="checkpoint"):
        load("latest")
