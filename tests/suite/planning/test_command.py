"""`suite plan`: its document, its tables, its errors, and the runs that it counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from suite.cli.commands.planning.check_table import check_document, check_notes
from suite.planning import check
from suite.planning.this_machine import CALIBRATION, CALIBRATION_TASKS, Measured, Step
from tests.suite.tiny import tiny_sets

SETS = [part for value in tiny_sets("sotu") for part in ("--set", value)]
TINY = ("plan", "--task", "sotu", "--scale", "board", *SETS)


def document(suite, *arguments: str) -> dict[str, Any]:
    ended = suite(*TINY, *arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_a_races_runs_are_those_of_the_sweeps_plan(suite):
    planned = document(suite, "--mixer", "softmax", "--mixer", "fem", "--seeds", "6", "--lrs", "5")
    race = ("sweep", "--task", "sotu", "--mixer", "softmax", "--mixer", "fem", "--scale", "board")
    swept = json.loads(suite(*race, *SETS, "--seeds", "6", "--lrs", "5", "--dry-run", "--json").out)
    runs = [row["race"]["runs"] for row in planned["rows"] if not row["curve"]]
    assert runs == [each["to_run"] for each in swept["races"]] == [24, 24]


def test_a_board_adds_softmax_and_its_parameter_curve(suite):
    found = document(suite, "--mixer", "fem", "--gpus", "2", "--gpu", "a100-80gb")
    assert [(row["mixer"], row["curve"]) for row in found["rows"]] == [
        ("fem", False),
        ("softmax", False),
        *((f"softmax model.width_factor={factor}", True) for factor in ("0.75", "1.25", "1.5")),
    ]
    assert found["board"]["runs"] == 20 * 5
    assert found["board"]["gpu_hours"] == pytest.approx(sum(row["race"]["gpu_hours"] for row in found["rows"]))
    row = found["rows"][0]
    assert row["race"]["gpu_hours"] == pytest.approx(20 * row["gpu_hours"])
    assert row["gpu_hours"] == pytest.approx(row["run_s"] * 2 / 3600)
    assert row["memory"]["total"] == pytest.approx(sum(v for k, v in row["memory"].items() if k != "total"))
    assert (found["gpu"]["name"], found["gpus"], found["parallel"], found["mfu"]) == ("a100-80gb", 2, "ddp", 0.35)


def test_tables_name_every_mixer_and_what_is_assumed(suite):
    ended = suite(*TINY, "--mixer", "softmax", "--mixer", "fem", "--gpus", "4")
    assert ended.code == 0
    for words in ("One run: sotu", "Memory of one GPU", "the board", "No GPU has been measured", "an assumption"):
        assert words in ended.out
    assert ended.out.count("\nfem ") == 3
    marked = suite(*TINY, "--mixer", "fem", "--markdown").out
    assert marked.count("\n| --- |") == 3


def test_a_model_that_does_not_fit_has_no_times(suite):
    ended = suite(*TINY, "--mixer", "softmax", "--set", "dim=16384", "--set", "ffn_width=43690", "--set", "depth=48")
    assert ended.code == 0, ended.err
    assert "does not fit" in ended.out
    assert "GPU hours" in ended.out


def test_a_size_of_the_curve_without_a_match_is_left_out_with_the_reason(suite):
    ended = suite("plan", "--task", "ettm1", "--scale", "board", "--mixer", "softmax")
    assert ended.code == 0, ended.err
    [line] = [line for line in ended.err.splitlines() if line.startswith("left out")]
    assert "softmax model.width_factor=0.75: budget: softmax is not matched" in line
    assert "softmax at 1.25, 1.5 × the parameters" in ended.out


def test_every_value_of_a_grid_has_its_row_and_its_curve(suite):
    found = document(suite, "--mixer", "fem", "--set", "depth=2,3")
    labels = [row["mixer"] for row in found["rows"]]
    assert labels[:4] == ["fem depth=2", "fem depth=3", "softmax depth=2", "softmax depth=3"]
    assert labels[4:6] == ["softmax depth=2 model.width_factor=0.75", "softmax depth=3 model.width_factor=0.75"]
    assert len(labels) == 4 + 2 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mixer", "fem", "--gpu", "h10"), "--gpu 'h10' is unknown; did you mean 'h100'? allowed: h100"),
        (("--mixer", "fem", "--gpus", "0"), "--gpus 0: 1 to 1048576 are allowed"),
        (("--mixer", "fem", "--gpus", "3"), "a batch of 8 examples does not divide among 3 GPUs"),
        (("--mixer", "fem", "--mfu", "35"), "--mfu 35: 0.01 to 0.8 are allowed"),
        (("--mixer", "fme"), "did you mean 'fem'"),
        ((), "a plan needs a task and mixers; give --mixer NAME"),
    ],
)
def test_errors_are_one_line(suite, arguments, message):
    ended = suite(*TINY, *arguments)
    assert ended.code == 2
    assert ended.out == ""
    [line] = [line for line in ended.err.splitlines() if not line.startswith("counting")]
    assert message in line


def test_a_mixer_that_does_not_support_the_task_is_named(suite):
    words = ("plan", "--task", "fashion-mnist", "--scale", "board")
    ended = suite(*words, "--mixer", "swa")
    assert ended.code == 2
    assert "swa" in ended.err
    both = suite(*words, "--mixer", "softmax", "--mixer", "swa")
    assert both.code == 0
    assert "left out: swa" in both.err


def measured(task: str, mixer: str, seconds: float, flops: float, moved: float) -> Measured:
    return Measured(Step(task, mixer, flops, moved, 0.0, 100.0, lambda: dict), seconds, seconds, seconds, 100)


@pytest.mark.parametrize(
    "given", [("--task", "sotu"), ("--gpus", "8"), ("--scale", "board"), ("--mfu", "0.3"), ("--set", "lr=1")]
)
def test_a_check_refuses_what_it_would_not_follow(suite, given):
    ended = suite("plan", "--check", *given, "--json")
    assert ended.code == 2
    assert f"takes no {given[0]}; allowed with it: --markdown, --json" in ended.err


def test_calibration_and_predictions_share_no_mixer_and_no_task():
    for known, predicted in zip(zip(*CALIBRATION, strict=True), (check.TASKS, check.MIXERS), strict=True):
        assert not set(known) & set(predicted)


def test_common_rates_come_from_the_calibration_runs_and_own_rates_from_its_tasks():
    known = [measured(*pair, seconds=1.0 + i, flops=1e9 * (1 + i), moved=0.0) for i, pair in enumerate(CALIBRATION)]
    own = [measured(task, "fox", 2.0 * i, i * 1e9, 0.0) for i, task in enumerate(CALIBRATION_TASKS, 1)]
    others = [*own, measured("mqar", "fox", 3.0, 2e9, 0.0), measured("mqar", "aft", 3.0, 2e9, 0.0)]
    found = check.compared([*known, *others])
    assert found.rates.products == pytest.approx(1e9)
    fox, aft = found.predicted
    assert fox.common_error == aft.common_error == aft.time_error == pytest.approx(2 / 3 - 1)
    assert fox.time_error == pytest.approx(4 / 3 - 1), "twice as slow as the common rates on the calibration's tasks"
    assert fox.memory_error == 0
    assert found.own.keys() == {"fox"}
    assert check_document(found)["own_rates"]["fox"]["flops_per_s"] == pytest.approx(0.5e9)
    (note,) = [line for line in check_notes(found) if "fox" in line]
    assert note.startswith("Own rates of fox: 0.50× the products and traffic")


def test_a_mixer_on_one_calibration_task_has_no_own_rates():
    known = [measured(*pair, seconds=1.0 + i, flops=1e9 * (1 + i), moved=0.0) for i, pair in enumerate(CALIBRATION)]
    found = check.compared([*known, measured(CALIBRATION_TASKS[0], "fox", 3.0, 2e9, 0.0)])
    assert not found.own
    assert [row.calibration for row in found.rows] == [True] * len(known) + [False]


def test_a_rate_that_took_no_time_is_null_in_json():
    known = [measured(*pair, seconds=1.0 + i, flops=1e9 * (1 + i), moved=0.0) for i, pair in enumerate(CALIBRATION)]
    rates = check_document(check.compared(known))["rates"]
    assert rates["bytes_per_s"] is rates["operations_per_s"] is None
    assert rates["flops_per_s"] == pytest.approx(1e9)
