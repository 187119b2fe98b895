"""`suite verify --reproduce`: an honest row gets its badge, an edited one none, with every hash computed again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from suite.boards.board import boards, primary_metric
from suite.boards.markdown import markdown
from suite.boards.plain import plain
from suite.records import badges
from suite.submissions import retraining
from suite.submissions.reproduce import allowed
from suite.submissions.reproducible import Row
from tests.suite.submissions.made import MINE, Content, forge, path_of, records
from tests.suite.submissions.reproduction.conftest import SIGMA
from tests.suite.tiny import made_record

FEM = ("--mixer", "fem")


def raise_figures(folder: Path, by: float, seeds: range = range(8)) -> None:
    """Raises what an author could raise, with everything computed again: no other check finds it."""

    def change(content: Content) -> None:
        content["metrics"]["test"]["top1"] = round((content["metrics"]["test"]["top1"] + by) * 2000) / 2000

    for seed in seeds:
        forge(folder, change, path_of(folder, seed=seed), list_again=seed == seeds[-1])


def test_an_honest_row_gets_the_badge_with_date_machine_and_figures(suite, entry_folder, trained):
    ended = suite("verify", str(entry_folder), "--reproduce", "3", *FEM, "--badge", "--json")
    assert ended.code == 0, ended
    [shown] = json.loads(ended.out)["reproduced"]
    assert (shown["fault"], shown["metric"], len(shown["seeds"])) == ("", "top1", 3)
    assert abs(shown["difference"]) <= shown["allowed"]
    assert {config.seed for config in trained} == set(shown["seeds"])
    assert len(trained) == 6
    root = entry_folder.parents[1]
    [checked] = [each for each in badges.read(root).checked if each.badge == "reproduced"]
    assert checked.figures is not None
    assert checked.figures.agrees
    assert checked.day == datetime.now(UTC).date().isoformat()
    here = records(entry_folder)
    assert sorted(checked.records) == sorted(here[path].hash for path in shown["records"])
    assert suite("verify", str(root)).code == 0
    [board] = boards(here.values(), badges=badges.by_record(badges.read(root)))
    assert f"reproduced 3 of 8 runs, {checked.day}, {checked.machine}" in markdown(board)
    [row] = [row for row in plain(board)["rows"] if row["mixer"] == "fem"]
    assert row["badge"]["figures"]["allowed"] == shown["allowed"]


def test_the_time_is_estimated_before_anything_is_trained(suite, entry_folder, trained, fails):
    fails("seed 0 diverged: the reason")
    ended = suite("verify", str(entry_folder), "--reproduce", "3", *FEM)
    estimate, first = ended.err.splitlines()[:2]
    assert "6 runs, about " in estimate
    assert "as recorded" in first


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_figures_that_were_raised_by_more_than_is_allowed_get_no_badge(suite, entry_folder, trained, count):
    raise_figures(entry_folder, by=0.1)
    assert suite("verify", str(entry_folder)).code == 0  # nothing else finds it
    ended = suite("verify", str(entry_folder), "--reproduce", str(count), *FEM, "--badge")
    assert ended.code == 1
    [line] = ended.out.splitlines()
    assert "fashion-mnist · board · fem: metrics.test.top1: over seeds " in line
    assert "is allowed [reproduced]" in line
    assert not (entry_folder.parents[1] / badges.NAME).exists()


def test_one_figure_raised_by_much_does_not_widen_what_is_allowed(suite, entry_folder, trained):
    """The deviation of the differences themselves would: then no single raised seed could be found."""
    raise_figures(entry_folder, by=0.15, seeds=range(2, 3))
    assert suite("verify", str(entry_folder), "--reproduce", "8", *FEM).code == 1


def test_figures_that_were_lowered_do_not_reproduce_either(suite, entry_folder, trained):
    raise_figures(entry_folder, by=-0.1)
    assert suite("verify", str(entry_folder), "--reproduce", "3", *FEM).code == 1


def test_a_run_that_fails_here_is_a_fault(suite, entry_folder, trained, fails):
    fails("seed 0 failed: out of memory")
    ended = suite("verify", str(entry_folder), "--reproduce", "3", *FEM, "--json")
    assert ended.code == 1
    [fault] = json.loads(ended.out)["faults"]
    assert (fault["check"], fault["message"]) == ("reproduced", "trained again, seed 0 failed: out of memory")


def test_the_file_of_an_author_runs_only_with_trust_and_after_its_name(suite, entry_folder, trained):
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", MINE)
    assert (ended.code, trained, ended.err.count("\n")) == (2, [], 1)
    assert "--trust-source" in ended.err
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", MINE, "--trust-source")
    assert ended.code == 0, ended
    assert "executing the mixer's file" in ended.err.splitlines()[0]
    assert len(trained) == 6


def test_parameters_that_a_file_under_reports_are_found_before_training(suite, entry_folder, trained):
    def change(content: Content) -> None:
        fewer = content["certificate"]["parameters"] - 500
        ratio = fewer / content["certificate"]["reference_parameters"]
        content["certificate"].update(parameters=fewer, ratio=ratio)

    for seed in range(8):
        forge(entry_folder, change, path_of(entry_folder, MINE, seed), list_again=seed == 7)
    ended = suite("verify", str(entry_folder), "--reproduce", "3", "--mixer", MINE, "--trust-source")
    assert (ended.code, trained) == (1, [])
    assert "certificate.parameters" in ended.out


def test_seeds_are_drawn_at_random_and_those_begun_here_come_first(entry_folder, monkeypatch):
    row = Row("a row", "fem", {path: made for path, made in records(entry_folder).items() if made.mixer == "fem"})
    row = replace(row, runs={path: made for path, made in row.runs.items() if made.config.train.lr == 2e-3})
    monkeypatch.setattr(retraining, "config_of", lambda made, _: (made.config, None))
    monkeypatch.setattr(retraining, "miscounted", lambda *_: "")
    drawn = {tuple(retraining.plan(row, 3, {}).drawn) for _ in range(8)}
    assert len(drawn) > 1  # but for 1 in 10^12
    first = next(iter(drawn))
    begun = {retraining.plan(row, 8, {}).configs[path][1].identity for path in first}
    monkeypatch.setattr(retraining, "_begun", lambda: begun)
    assert all(set(first) < set(retraining.plan(row, 4, {}).drawn) for _ in range(8))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--reproduce", "2"), "at least 3 seeds"),
        (("--reproduce", "9", *FEM), "it has 8 seeds, 9 were requested"),
        (("--reproduce", "3", "--mixer", "softmax"), "no row of softmax"),
        (FEM, "--reproduce K"),
    ],
)
def test_a_users_mistake_is_one_line(suite, entry_folder, trained, words, message):
    ended = suite("verify", str(entry_folder), *words)
    assert (ended.code, ended.out, ended.err.count("\n"), trained) == (2, "", 1, [])
    assert message in ended.err


def test_an_entry_with_faults_is_not_trained_again(suite, entry_folder, trained):
    (entry_folder / "more.txt").write_text("")
    ended = suite("verify", str(entry_folder), "--reproduce", "3", *FEM)
    assert (ended.code, trained) == (1, [])
    assert "before these faults are fixed" in ended.err


def test_a_race_that_has_not_ended_has_no_row(suite, entry_folder, trained):
    path_of(entry_folder, seed=5).unlink()
    ended = suite("verify", str(entry_folder / "records"), "--reproduce", "3", *FEM)
    assert ended.code in (1, 2)
    assert trained == []


def test_no_badge_from_changed_code(suite, entry_folder, trained, monkeypatch):
    monkeypatch.setattr("suite.records.provenance._git", lambda *words: "M a.py" if words[0] == "status" else "a" * 40)
    ended = suite("verify", str(entry_folder), "--reproduce", "3", *FEM, "--badge")
    assert (ended.code, ended.err.count("\n"), trained) == (2, 1, [])
    assert "git status" in ended.err


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_as_many_honest_rows_agree_as_promised_and_raised_ones_do_not(seeds):
    metric, random = primary_metric(made_record("fem")), np.random.default_rng(seeds)

    def agrees(raised: float) -> float:
        differences = random.normal(raised, SIGMA, (4000, seeds)).mean(1)
        deviations = np.sqrt(random.normal(0, SIGMA, (4000, seeds)) ** 2).T
        bounds = [allowed(float(d), seeds, metric, 10**6) for d in np.sqrt((deviations**2).mean(0))]
        return float(np.mean(np.abs(differences) <= np.array(bounds)))

    assert agrees(0) == pytest.approx(0.95, abs=0.012)
    assert agrees(5 * SIGMA) < {3: 0.35, 5: 0.03, 8: 0.005}[seeds]


def test_what_no_board_shows_is_allowed_where_rounding_changes_nothing():
    metric = primary_metric(made_record("fem"))
    assert allowed(0.0, 3, metric, 2000) == 1 / 2000  # an image
    bits = primary_metric(made_record("fem", 2.0, task="sotu"))
    assert allowed(0.0, 3, bits, 1024) == 0.5 * 10**-bits.digits
