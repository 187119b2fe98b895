"""What boards claim: the full race, shared ranks, differences to softmax, worth in parameters, diverged seeds."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from suite.boards.board import Board, boards
from suite.boards.compare import scores
from suite.boards.markdown import markdown
from suite.boards.pair import pairs
from suite.boards.plain import plain
from suite.boards.raced import SEEDS, race_of
from suite.records import record
from suite.records.schema import Record
from suite.statistics.race import Race
from tests.suite.tiny import made_record

BASE = {"softmax": 0.70, "fem": 0.80, "no-mixing": 0.40, "qk-norm": 0.701}


def noise(mixer: str, rate: float, seed: int, split: str) -> float:
    """A run's deviation of .01, the same in every process."""
    key = [sum(map(ord, mixer + split)), round(rate * 1e7), seed]
    return float(np.random.default_rng(key).normal(0, 0.01))


@cache
def planned(mixer: str) -> Race:
    race = race_of(made_record(mixer))
    assert race is not None
    return race


@cache
def run(mixer: str, rate: float, seed: int, *, sets: tuple[str, ...] = ()) -> Record:
    """A run whose validation is best at the race's middle rate."""
    loss = 0.05 * abs(np.log(rate / planned("softmax").rates[1]))
    valid, test = (BASE[mixer] - loss + noise(mixer, rate, seed, split) for split in ("valid", "test"))
    return made_record(
        mixer, test, valid=valid, seed=seed, sets=(f"lr={rate:g}", *sets), name=f"{mixer}-{rate:g}-{seed}-{len(sets)}"
    )


def whole_race(mixer: str, **more) -> list[Record]:
    race = planned("softmax")
    made = [run(mixer, rate, seed, **more) for rate in race.rates for seed in race.seeds[: race.first_seeds]]
    by_valid = sorted(
        race.rates, key=lambda rate: -sum(r.metrics["valid"]["top1"] for r in made if r.config.train.lr == rate)
    )
    return made + [run(mixer, rate, seed, **more) for rate in by_valid[:2] for seed in race.seeds[race.first_seeds :]]


def only(records) -> Any:
    [found] = boards(records)
    return found


def row_of(board: Board, mixer: str) -> Any:
    return next(row for row in board.rows if row.mixer.split(" (lr=")[0] == mixer)


@pytest.fixture(scope="module")
def raced() -> Board:
    return only([made for mixer in BASE for made in whole_race(mixer)])


def test_a_row_consists_of_the_eight_seeds_of_the_rate_that_won_the_race(raced):
    for row in raced.rows:
        assert [made.seed for made in row.records] == list(SEEDS)
        assert {made.config.train.lr for made in row.records} == {planned("softmax").rates[1]}
        assert (row.race.runs, row.race.planned, row.race.chosen) == (20, 20, planned("softmax").rates[1])


def test_rows_that_no_test_separates_share_a_rank(raced):
    ranks = {row.mixer: str(row.figures.rank) for row in raced.rows}
    assert ranks == {"fem": "1", "softmax": "2–3", "qk-norm": "2–3", "no-mixing": "4"}


def test_the_difference_to_softmax_is_welchs(raced):
    fem, softmax = ([made.metrics["test"]["top1"] for made in row_of(raced, m).records] for m in ("fem", "softmax"))
    found = plain(raced)["rows"][0]
    assert found["mixer"] == "fem"
    assert found["difference"]["estimate"] == pytest.approx(np.mean(fem) - np.mean(softmax))
    wanted = stats.ttest_ind(fem, softmax, equal_var=False)
    added = (
        row_of(raced, "fem").figures.scores.choice_variance + row_of(raced, "softmax").figures.scores.choice_variance
    )
    assert added < 1e-6  # rates are far apart, so choosing adds next to nothing
    assert found["difference"]["low"] == pytest.approx(wanted.confidence_interval().low, rel=1e-2)
    assert found["verdict"] == "better"
    assert row_of(raced, "no-mixing").figures.verdict == "worse"
    assert row_of(raced, "qk-norm").figures.verdict == "undecided"
    assert row_of(raced, "softmax").figures.verdict is None


def test_an_eliminated_rate_that_is_better_on_test_widens_its_row(raced):
    made = [each for mixer in BASE for each in whole_race(mixer)]
    [eliminated] = set(planned("fem").rates) - set(row_of(raced, "fem").race.finals)
    better = [
        each.model_copy(update={"metrics": {**each.metrics, "test": {**each.metrics["test"], "top1": 0.99}}})
        if (each.mixer, each.config.train.lr) == ("fem", eliminated)
        else each
        for each in made
    ]
    wide = row_of(only(better), "fem")
    assert wide.race.chosen == row_of(raced, "fem").race.chosen
    assert wide.figures.half_width > 1.5 * row_of(raced, "fem").figures.half_width


def test_a_rate_that_ran_on_all_seeds_counts_with_all_of_them(monkeypatch, raced):
    """Its first seeds alone would be noisier."""
    given = []

    def variance(valid, test, chosen):
        given.append((valid, test))
        return 0.0

    monkeypatch.setattr("suite.boards.compare.choice_variance", variance)
    row = row_of(raced, "fem")
    scores(row, raced.metric)
    [(valid, test)] = given
    wanted = {rate: len(runs) for rate, runs in {**row.race.screened, **row.race.finals}.items()}
    assert sorted(wanted.values()) == [4, 8, 8]
    for each in (valid, test):
        assert {rate: len(values) for rate, values in each.items()} == wanted


def test_a_row_without_the_full_race_has_no_rank_next_to_rows_that_had_it(raced):
    part = [run("fem", planned("softmax").rates[1], seed, sets=("lse=false",)) for seed in SEEDS]
    found = only([*(made for row in raced.rows for made in whole_race(row.mixer)), *part])
    row = row_of(found, "fem (lse=off)")
    assert (row.unranked, row.place, row.figures.rank) == ("no full race", None, None)
    assert "8 of 20" in markdown(found)


def test_a_race_whose_window_moves_says_how_many_runs_it_has_now(raced):
    """Only the highest rate of fem runs on all seeds well: its window moves by one rate, which has 8 runs."""
    low, middle, high = planned("softmax").rates
    value = {low: 0.1, middle: 0.4, high: 0.8}
    fem = [run("fem", rate, seed) for rate in value for seed in (SEEDS[:4] if rate == low else SEEDS)]
    rising = [
        made.model_copy(update={"metrics": {split: {"top1": value[made.config.train.lr]} for split in made.metrics}})
        for made in fem
    ]
    found = only([*whole_race("softmax"), *rising])
    row = next(row for row in found.rows if row.mixer.startswith("fem"))
    assert (row.race.runs, row.race.planned, row.race.chosen) == (20, 28, None)
    assert "20 of 28" in markdown(found)


def test_a_board_without_a_row_has_no_table():
    middle = planned("softmax").rates[1]
    text = markdown(only([run("softmax", middle, seed) for seed in range(100, 103)]))
    assert "no row yet" in text
    assert "|" not in text


def test_without_any_race_rows_rank_and_the_board_says_that_rates_were_not_tuned():
    made = [run(mixer, planned("softmax").rates[1], seed) for mixer in ("softmax", "fem") for seed in range(3)]
    found = only(made)
    assert [row.place for row in found.rows] == [1, 2]
    assert "no row had the full race" in markdown(found)


def test_a_run_without_a_row_has_the_reason_with_both_rates(raced):
    reasons = {each["run"]: each["reason"] for each in plain(raced)["left_out"]}
    assert len(reasons) == 4 * 12
    low, middle, high = planned("softmax").rates
    assert f"lr={low:g} lost on validation to lr={middle:g}: 0." in reasons[f"fem-{low:g}-0-0"]
    assert {f"fem-{rate:g}-0-0" in reasons for rate in (low, high)} == {True}


def test_calibration_runs_choose_the_test_and_belong_to_no_row():
    rate = planned("softmax").rates[1]
    calibration = [run(mixer, rate, seed) for mixer in ("softmax", "fem") for seed in range(100, 106)]
    part = [run(mixer, rate, seed) for mixer in ("softmax", "fem") for seed in range(3)]
    found = only([*part, *calibration])
    assert [[made.seed for made in row.records] for row in found.rows] == [[0, 1, 2], [0, 1, 2]]
    assert found.noise.calibrated is not None
    reasons = {each["run"]: each["reason"] for each in plain(found)["left_out"]}
    assert set(reasons) == {made.id for made in calibration}
    assert all("calibration seed" in reason for reason in reasons.values())
    alone = only(calibration)
    assert (alone.rows, alone.noise) == ((), None)
    assert "no row yet" in markdown(alone)
    assert "one seed per row" not in markdown(alone)


def test_a_test_figure_cannot_change_which_runs_are_chosen(raced):
    high = planned("softmax").rates[2]
    records = [
        made.model_copy(update={"metrics": {**made.metrics, "test": dict.fromkeys(made.metrics["test"], 0.99)}})
        if made.config.train.lr == high
        else made
        for mixer in BASE
        for made in whole_race(mixer)
    ]
    chosen = [[made.id for made in row.records] for row in sorted(only(records).rows, key=lambda row: row.mixer)]
    assert chosen == [[made.id for made in row.records] for row in sorted(raced.rows, key=lambda row: row.mixer)]


def test_a_diverged_seed_counts_with_the_untrained_models_figure_and_is_named():
    records = whole_race("softmax") + whole_race("fem")
    rate = planned("softmax").rates[1]
    index = records.index(run("fem", rate, 5))
    gone = records[index]
    figures = {split: dict.fromkeys(gone.metrics["test"], value) for split, value in (("valid", 0.6), ("test", 0.1))}
    records[index] = gone.model_copy(update={"status": "diverged", "error": "loss is nan", "metrics": figures})
    found = only(records)
    row = row_of(found, "fem")
    assert row.diverged == {5: "loss is nan"}
    assert min(plain(found)["rows"][[r.mixer for r in found.rows].index("fem")]["values"]) == 0.1
    assert "fem, seed 5 diverged and counts with the untrained model's figure (loss is nan)" in markdown(found)


def test_records_of_changed_code_never_rank_next_to_rows_of_the_full_race():
    records = whole_race("softmax") + whole_race("fem")
    index = records.index(made := run("fem", planned("softmax").rates[1], 5))
    records[index] = made.model_copy(update={"code": made.code.model_copy(update={"git_dirty": True})})
    assert row_of(only(records), "fem").unranked == "changed code"


def test_calibration_seeds_choose_the_test_and_are_in_no_row():
    rate = planned("softmax").rates[1]
    records = whole_race("softmax") + whole_race("fem")
    assert only(records).noise.calibrated is None
    shared = {seed: noise("shared", rate, seed, "test") for seed in range(100, 110)}
    calibration = [
        made_record(mixer, BASE[mixer] + shared[seed], seed=seed, sets=(f"lr={rate:g}",), name=f"{mixer}-c{seed}")
        for mixer in ("softmax", "fem")
        for seed in shared
    ]
    found = only(records + calibration)
    assert (found.noise.test, found.noise.calibrated.estimate) == ("paired", pytest.approx(1))
    assert all(made.seed < 100 for row in found.rows for made in row.records)
    assert "the paired t test and sign flips" in markdown(found)


def test_the_softmax_curve_gives_each_row_its_worth_in_parameters_and_never_ranks():
    rate = planned("softmax").rates[1]
    sizes = {0.75: -0.05, 1.25: 0.03, 1.5: 0.2}
    curve = [
        made_record(
            "softmax",
            BASE["softmax"] + gain + noise(f"curve{factor}", rate, seed, "test"),
            seed=seed,
            sets=(f"lr={rate:g}", f"width_factor={factor:g}"),
            name=f"curve-{factor}-{seed}",
        )
        for factor, gain in sizes.items()
        for seed in SEEDS
    ]
    found = only([*(made for mixer in BASE for made in whole_race(mixer)), *curve])
    worth: dict[str, Any] = {
        row.mixer: row.figures.exchange for row in found.rows if row.figures and row.figures.exchange
    }
    assert set(worth) == set(BASE)
    assert 1.25 < worth["fem"].low < worth["fem"].estimate < worth["fem"].high < 1.5
    assert worth["no-mixing"].beyond == "below"
    assert {row.unranked for row in found.rows if row.mixer not in BASE} == {"other size"}
    text = markdown(found)
    assert f"{worth['fem'].estimate:.2f}×" in text
    assert "below the curve" in text


def test_json_of_a_board_is_plain(raced):
    document = json.loads(json.dumps(plain(raced), allow_nan=False))
    assert document["noise"]["test"] == "welch"
    assert document["noise"]["deviation"] == pytest.approx(0.01, rel=0.3)
    assert document["rows"][0]["rank"] == [1, 1]


def test_two_rows_are_compared_with_each_other(raced):
    [found] = pairs([raced], "fem", "qk-norm")
    fem, qk = ([made.metrics["test"]["top1"] for made in row_of(raced, m).records] for m in ("fem", "qk-norm"))
    assert found.difference.estimate == pytest.approx(np.mean(fem) - np.mean(qk))
    assert found.difference.p == pytest.approx(stats.ttest_ind(fem, qk, equal_var=False).pvalue, rel=0.1)
    assert (found.verdict, found.seeds) == ("better", 0)
    [turned] = pairs([raced], "qk-norm", "fem")
    assert (turned.verdict, turned.difference.estimate) == ("worse", -found.difference.estimate)


def test_a_pair_has_the_verdict_of_its_board():
    """Of pairs that were looked for on a board some differ by chance: they are adjusted as the board's ranks are."""
    few = [made for mixer in BASE for made in whole_race(mixer)]
    close = {name: 0.70 + 0.002 * i for i, name in enumerate(("gla", "aft", "linear", "ssm", "simple-gla", "hyperglu"))}
    BASE.update(close)
    try:
        found = only([*few, *(made for mixer in close for made in whole_race(mixer))])
    finally:
        for name in close:
            del BASE[name]
    names = [row.mixer for row in found.rows if not row.unranked]
    every: list[Any] = [pair for i, a in enumerate(names) for b in names[:i] for pair in pairs([found], a, b)]
    assert any(pair.difference.p <= 0.05 and pair.verdict == "undecided" for pair in every)
    for pair in every:
        assert pair.p >= pair.difference.p
        assert (pair.verdict == "undecided") == (pair.p > 0.05)
        assert (pair.seeds == 0) == (pair.p <= 0.05)
        if pair.other.mixer == "softmax":
            assert pair.verdict == pair.one.figures.verdict
        elif pair.one.mixer != "softmax":
            assert (pair.verdict == "better") <= (pair.other.figures.rank.first > 1)
            assert (pair.verdict == "worse") <= (pair.one.figures.rank.first > 1)


def test_rows_that_cannot_be_distinguished_get_the_number_of_seeds_that_would_do(raced):
    [found] = pairs([raced], "qk-norm", "softmax")
    assert found.verdict == "undecided"
    assert found.seeds is None or found.seeds > 0
    assert pairs([raced], "fem", "fem") == pairs([raced], "fem", "nothing") == []


def test_compare_prints_the_verdict_and_refuses_names_without_rows(suite, runs):
    for made in [*whole_race("softmax"), *whole_race("fem")]:
        (runs / made.id).mkdir(parents=True)
        record.write(runs / made.id, made)
    ended = suite("compare", "fem", "softmax")
    assert ended.code == 0
    assert "fem is better" in ended.out
    [document] = json.loads(suite("compare", "softmax", "fem", "--json").out)
    assert (document["verdict"], document["more_seeds"], document["test"]) == ("worse", 0, "welch")
    for words in (("fme", "softmax"), ("fem", "gla"), ("fem", "softmax", "--scale", "quick")):
        ended = suite("compare", *words)
        assert ended.code == 2
        assert len(ended.err.strip().splitlines()) == 1
    assert "did you mean 'fem'" in suite("compare", "fme", "softmax").err
