"""The checks of the task contract find what they promise to find: one planted error each."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

import tasks
from tasks.base import Batch, DataError
from tasks.contract.run import CHECKS, as_json, render, run_checks
from tests.tasks.local_data import LOCAL
from tests.tasks.planted_errors import (
    ERRORS,
    SMALL,
    DropsTheLast,
    MeanOfMeans,
    PadsTheLast,
    SlowerWithWorkers,
    Sorting,
    SpecOfTheFolder,
)


def failures(cls, *, slow: bool = False) -> set[str]:
    options = SMALL if cls.Options is Sorting.Options else cls.Options()
    return {result.check for result in run_checks(cls, options=options, slow=slow) if result.status == "failed"}


def test_the_example_keeps_the_whole_contract():
    results = run_checks(Sorting, options=SMALL, slow=True)
    assert {result.check: result.status for result in results} == {check.id: "ok" for check in CHECKS}


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_a_planted_error_fails_its_checks_and_no_others(cls):
    assert failures(cls, slow=cls is SlowerWithWorkers) == ERRORS[cls]


@pytest.mark.parametrize("cls", [MeanOfMeans, DropsTheLast, PadsTheLast], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("examples", [224, 672])
def test_a_split_that_every_batch_size_divides_hides_no_error(cls, examples):
    """224 and 672 are multiples of 1, 7 and 32, and 672 of 2 and 3 processes too."""
    options = Sorting.Options(digits=3, train_examples=examples, valid_examples=examples, test_examples=examples)
    found = {r.check for r in run_checks(cls, options=options) if r.status == "failed"}
    assert found == ERRORS[cls]


@pytest.mark.parametrize("name", ["csv", "folder", "mad-copy", "mqar"])
@pytest.mark.parametrize("weight", ["one per batch", "rows"])
def test_a_task_that_averages_the_means_of_batches_fails(tmp_path, name, weight):
    """Rows as weights are right where every row has as many scored values."""
    local, cls = LOCAL[name], tasks.get(name)

    class Averages(cls):  # type: ignore[valid-type, misc]
        def measure(self, outputs, batch):
            count = 1.0 if weight == "one per batch" else float(batch.size)
            return {key: (total / n * count, count) for key, (total, n) in super().measure(outputs, batch).items()}

    folder = local.write(tmp_path) if local.write else None
    [result] = run_checks(Averages, folder, cls.Options(**local.options), only=["batch size"])
    assert (result.status == "failed") == (weight == "one per batch" or name.startswith("m"))


AVERAGING = """
from tasks.recall.mad_copy import MadCopy

class Averaging(MadCopy):
    name = "averaging"
    protocol = "averaging/1"
    version = 1

    def measure(self, outputs, batch):
        return {key: (total / count, 1.0) for key, (total, count) in super().measure(outputs, batch).items()}
"""


def test_suite_check_fails_for_a_file_whose_task_averages_the_means_of_batches(tmp_path, monkeypatch, capsys):
    from suite.cli import app

    (tmp_path / "mine.py").write_text(AVERAGING)
    sizes = [f"{key}={value}" for key, value in LOCAL["mad-copy"].options.items()]
    given = [part for size in sizes for part in ("--set", size)]
    monkeypatch.setattr("sys.argv", ["suite", "check", f"{tmp_path}/mine.py:Averaging", *given, "--json"])
    with pytest.raises(SystemExit) as end:
        app.main()
    failed = {r["check"] for r in json.loads(capsys.readouterr().out)["results"] if r["status"] == "failed"}
    assert (end.value.code, failed) == (1, {"batch size", "test units"})


def test_a_spec_that_depends_on_the_data_declares_the_fields(tmp_path):
    [result] = run_checks(SpecOfTheFolder, tmp_path, SMALL, only=["spec"])
    assert (result.status, dict(result.setting)["fields"]) == ("failed", "vocab")
    declared = type("Declared", (SpecOfTheFolder,), {"data_decides": frozenset({"vocab"})})
    [result] = run_checks(declared, tmp_path, SMALL, only=["spec"])
    assert result.status == "ok"


def test_every_check_finds_one_of_the_planted_errors():
    assert set().union(*ERRORS.values()) == {check.id for check in CHECKS}


def test_a_failure_is_shown_with_the_smallest_setting_and_its_figures():
    [result] = run_checks(DropsTheLast, options=SMALL, only=["evaluation"])
    assert dict(result.setting) == {"split": "train", "batch_size": 32, "evaluated": 32, "n_examples": 40}
    assert "batch_size=32" in result.shown_by


def test_whatever_a_task_raises_is_a_failure_of_the_check():
    class Raises(Sorting):
        def loss(self, outputs, batch):
            raise KeyError("no such thing")

    [result] = run_checks(Raises, options=SMALL, only=["loss"])
    assert (result.status, "KeyError" in result.reason) == ("failed", True)


def test_an_epoch_of_augmented_images_is_compared_by_the_number_of_each_class():
    fashion = tasks.get("fashion-mnist")

    class Unbalanced(fashion):  # type: ignore[valid-type, misc]
        def train_batches(self, *arguments, **more):
            for batch in super().train_batches(*arguments, **more):
                yield Batch(batch.inputs, batch.targets * 0 + 3)

    assert run_checks(Unbalanced, only=["epochs"])[0].status == "failed"


def test_large_splits_are_left_out_unless_slow_checks_are_requested():
    large = Sorting.Options(digits=2, train_examples=40, valid_examples=2_001, test_examples=2_001)
    [result] = run_checks(Sorting, options=large, only=["batch size"])
    assert (result.status, "2,001" in result.reason) == ("not applicable", True)
    [result] = run_checks(Sorting, options=large, only=["batch size"], slow=True)
    assert result.status == "ok"


def test_an_unknown_check_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match=r"'shard'.*shards"):
        run_checks(Sorting, only=["shard"])


def test_results_are_one_json_document_and_one_table():
    results = run_checks(MeanOfMeans, options=SMALL, only=["metrics", "batch size", "epochs"])
    shown = json.loads(json.dumps(as_json("mine", results)))
    assert (shown["task"], shown["holds"]) == ("mine", False)
    assert shown["counts"] == {"ok": 2, "not applicable": 0, "failed": 1}
    assert shown["results"][-1]["setting"]["metric"] in ("accuracy", "loss")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render("mine", results))
    assert "FAILS" in console.export_text()
