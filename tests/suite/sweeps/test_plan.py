"""From a command line to races: seeds, grids, budgets, plans; and what a sweep may see of a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from suite.errors import UserError
from suite.records.schema import Record
from suite.sweeps.entrant import Entrant, Score, score_of
from suite.sweeps.plan import Wanted, entrants, parse_seeds
from suite.sweeps.plan_file import write_plan
from suite.sweeps.scheduler import Progress, next_run
from suite.sweeps.status import leader, planned, remaining_s
from tests.suite.tiny import made_record, tiny_sets

SOTU = tuple(tiny_sets("sotu"))


def races(*mixers: str, sets: tuple[str, ...] = SOTU, **more) -> list[Entrant]:
    return entrants(Wanted(("sotu",), mixers, "board", sets, **more))[0]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("0-2", (0, 1, 2)), ("5,1", (5, 1)), ("0,4-6", (0, 4, 5, 6)), ("7,", None), ("2-1", None)]
    + [(text, None) for text in ("", "a", "0", "1,1", "-1", "0-1000", "5000", "0-99999999999", "1.5", "9" * 400)],
)
def test_seeds_are_a_number_a_range_or_a_list(text, seeds):
    if seeds is not None:
        assert parse_seeds(text) == seeds
        return
    with pytest.raises(UserError, match="--seeds") as problem:
        parse_seeds(text)
    assert len(str(problem.value)) < 200


def test_each_mixer_has_a_race_around_the_recipes_rate_at_the_size_of_its_budget():
    softmax, fem = races("softmax", "fem")
    assert softmax.race.rates == fem.race.rates == (1e-3, 3e-3, 9e-3)
    assert [each.race.runs for each in (softmax, fem)] == [20, 20]
    assert fem.base.mixer_options.solved_options()
    assert all(getattr(fem.base.mixer_options, name) is not None for name in fem.base.mixer_options.solved_options())


def test_the_config_of_a_run_is_that_of_the_command_run_with_its_rate_and_seed():
    from suite.models.resolve import resolve

    (fem,) = races("fem")
    asked = resolve(task="sotu", mixer="fem", scale="board", seed=3, sets=[*SOTU, "lr=9e-3"])
    solved = asked.model_copy(update={"mixer_options": fem.base.mixer_options})
    assert fem.config(9e-3, 3).identity == solved.identity


def test_several_values_of_a_rate_are_the_race_and_of_other_options_a_row_each():
    made = races("softmax", "fem", sets=(*SOTU, "lr=2e-3,1e-3", "batch_size=8,16"))
    assert {each.race.rates for each in made} == {(1e-3, 2e-3)}
    assert [each.label for each in made] == [
        f"{mixer} batch_size={size}" for mixer in ("softmax", "fem") for size in (8, 16)
    ]
    assert [each.base.train.batch_size for each in made] == [8, 16, 8, 16]


@pytest.mark.parametrize("value", ["lr=1e-3,x", "lr=0,1", "lr=", "lr=inf", "lr=nan"])
def test_rates_that_are_no_positive_numbers_are_refused(value):
    with pytest.raises(UserError, match="lr"):
        races("softmax", sets=(value,))


def test_a_mixer_that_does_not_fit_is_left_out_with_its_reason_and_alone_refused():
    wanted = Wanted(("sotu",), ("softmax", "fem"), "board", (*SOTU, "mixer.causal=false"))
    with pytest.raises(UserError, match=r"nothing to race: softmax on sotu: .*causal"):
        entrants(wanted)
    with pytest.raises(UserError, match="causal"):
        races("fem", sets=(*SOTU, "mixer.causal=false"))


def test_a_mixer_named_twice_is_refused():
    with pytest.raises(UserError, match="softmax is named twice"):
        races("softmax", "softmax")


def test_runs_that_have_ended_are_adopted_by_identity_and_never_requested_again():
    made = [made_record("softmax", 0.5, task="sotu", seed=seed, sets=(*SOTU, "lr=3e-3")) for seed in (0, 1)]
    other = made_record("fem", 0.5, task="sotu", seed=0, sets=(*SOTU, "lr=3e-3"))
    failed = made_record("softmax", 0.5, task="sotu", seed=2, sets=(*SOTU, "lr=3e-3"), status="failed")
    (softmax,) = races("softmax")
    softmax.adopt([*made, other, failed])
    assert sorted(softmax.scores) == [(3e-3, 0), (3e-3, 1)]
    assert not set(softmax.scores) & set(softmax.state().missing)


class Peeking(dict[Any, Any]):
    """Metrics that fail when anything but validation is read."""

    def get(self, key, default=None):
        assert key == "valid", f"selection read {key!r}"
        return super().get(key, default)

    def __getitem__(self, key):
        raise AssertionError(f"selection read {key!r}")


def test_what_chooses_never_sees_the_test_set():
    made = made_record("softmax", 0.5, task="sotu", valid=0.7)
    blind = Record.model_construct(**{**dict(made), "metrics": Peeking(made.metrics)})
    assert score_of(blind).valid == 0.7
    assert set(Score.__dataclass_fields__) == {"valid", "status", "wall_s"}
    swapped = made.model_copy(update={"metrics": {**made.metrics, "test": dict.fromkeys(made.metrics["test"], 99.0)}})
    assert score_of(swapped) == score_of(made)


def test_races_advance_together():
    made, order = races("softmax", "fem"), []
    for _ in range(6):
        chosen = next_run(made, set())
        assert chosen is not None
        index, rate, seed = chosen
        order.append((index, rate, seed))
        made[index].scores[rate, seed] = Score(1.0, "finished")
    assert order == [(i, rate, 0) for rate in (1e-3, 3e-3, 9e-3) for i in (0, 1)]
    assert next_run(made, {(0, 1e-3, 1)}) == (1, 1e-3, 1)


def test_a_run_that_failed_ends_its_race_and_no_other():
    softmax, fem = races("softmax", "fem")
    softmax.scores[1e-3, 0] = Score(None, "failed")
    assert (softmax.state().missing, softmax.state().chosen) == ((), None)
    assert next_run([softmax, fem], set()) == (1, 1e-3, 0)


def test_the_leader_follows_the_metrics_direction_and_the_time_left_is_measured():
    softmax, fem = races("softmax", "fem")
    assert leader([softmax, fem], "sotu") == ("", "")
    softmax.scores |= {(1e-3, 0): Score(3.0, "finished"), (3e-3, 0): Score(5.0, "finished")}
    fem.scores |= {(1e-3, 0): Score(4.0, "finished"), (1e-3, 1): Score(1.0, "finished")}
    assert leader([softmax, fem], "sotu")[0] == "fem"  # bits per byte: the mean of 2.5 is better than 3
    assert remaining_s([softmax, fem], Progress(), 2) is None
    assert remaining_s([softmax, fem], Progress(ran=4, seconds=40.0), 2) == pytest.approx((40 - 4) * 10 / 2)
    assert planned(fem) == 20


def test_a_plan_lists_each_unfinished_race_once_as_a_command_that_may_run_again(suite, tmp_path, monkeypatch):
    sets = [word for value in SOTU for word in ("--set", value)]
    path = tmp_path / "plan.txt"
    ended = suite("sweep", "--task", "sotu", "--mixer", "softmax", "--mixer", "fem", *sets, "--plan", str(path))
    assert ended.code == 0
    lines = path.read_text("utf-8").splitlines()
    assert [line.startswith("suite sweep --task sotu --mixer ") for line in lines] == [True, True]
    assert all("--seeds 0,1,2,3,4,5,6,7" in line and "lr=0.001,0.003,0.009" in line for line in lines)
    again = suite(*lines[1].split()[1:], "--dry-run", "--json")
    (race,) = json.loads(again.out)["races"]
    assert (race["mixer"], race["rates"], race["to_run"], race["done"]) == ("fem", [1e-3, 3e-3, 9e-3], 20, 0)
    assert json.loads(again.out)["expected_s"] > 0


def test_a_command_of_a_plan_has_the_exact_rates_of_its_race(tmp_path):
    race = races("softmax", sets=(*SOTU, f"lr=0.00012345678,{1 / 3000!r}"))
    write_plan(tmp_path / "plan.txt", race, [])
    (written,) = [word[3:] for word in (tmp_path / "plan.txt").read_text("utf-8").split() if word.startswith("lr=")]
    assert tuple(float(rate) for rate in written.split(",")) == (0.00012345678, 1 / 3000)


@pytest.mark.parametrize("seeds", ["5-5", "1", "3,1", "0-2"])
def test_a_command_of_a_plan_has_the_seeds_of_its_race(tmp_path, seeds):
    race = races("softmax", seeds=parse_seeds(seeds))
    write_plan(tmp_path / "plan.txt", race, ["--threads", "2"])
    words = (tmp_path / "plan.txt").read_text("utf-8").split()
    assert parse_seeds(words[words.index("--seeds") + 1]) == parse_seeds(seeds)
    assert words[-2:] == ["--threads", "2"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--task", "sotu"], "--mixer"),
        (["--mixer", "fem"], "--task"),
        (["--task", "sotu", "--mixer", "fem", "--seeds", "x"], "'x'"),
        (["--task", "nothing", "--mixer", "fem"], "nothing"),
        (["--task", "sotu", "--mixer", "nothing"], "nothing"),
        (["--task", "sotu", "--mixer", "fem", "--plan", "/"], "--plan"),
        (["--task", "sotu", "--mixer", "fem", "--plan", "p.txt", "--dry-run"], "--dry-run"),
        (["--task", "sotu", "--mixer", "fem", "--plan", "p.txt", "--json"], "--json"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(suite, arguments, part):
    ended = suite("sweep", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert part in ended.err
