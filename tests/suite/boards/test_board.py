"""Boards: which runs are compared, how rows are selected, named and ordered, and which rows have a rank."""

from __future__ import annotations

import statistics

import pytest

from suite.boards import board
from suite.boards.board import boards
from suite.boards.markdown import markdown
from suite.boards.plain import plain
from tasks.text.tokenizers import train_bpe
from tests.suite.tiny import made_record


def only(records):
    found = boards(records)
    assert len(found) == 1
    return found[0]


def forecast(mixer, value, **more):
    return made_record(mixer, value, task="household-power", **more)


def test_an_accuracy_is_ordered_from_high_to_low():
    rows = only([made_record("softmax", 0.5), made_record("fem", 0.7), made_record("no-mixing", 0.6)]).rows
    assert [(row.mixer, row.place) for row in rows] == [("fem", 1), ("no-mixing", 2), ("softmax", 3)]


def test_a_row_shows_the_options_that_its_result_is_about():
    hyper = made_record("hypermlp", 0.5)
    solved = hyper.certificate.mixer_options.model_dump()
    found = only([hyper, made_record("gla", 0.6), made_record("softmax", 0.4)])
    named = f"hypermlp (rank={solved['rank']}, d_qk={solved['d_qk']})"
    assert [row.mixer for row in found.rows] == ["gla (host prior)", named, "softmax"]
    assert "host prior: positive, normalised weights" in markdown(found)
    assert plain(found)["rows"][1]["mixer_options"] == solved
    assert "host prior" not in markdown(only([made_record("softmax", 0.4)]))


def test_an_error_is_ordered_from_low_to_high():
    rows = only([forecast("softmax", 0.5), forecast("fem", 0.7), forecast("no-mixing", 0.4)]).rows
    assert [(row.mixer, row.place) for row in rows] == [("no-mixing", 1), ("softmax", 2), ("fem", 3)]


def test_a_row_is_the_mean_and_the_deviation_over_seeds():
    values = [0.5, 0.6, 0.75]
    row = only([made_record(value=v, seed=s) for s, v in enumerate(values)]).rows[0]
    assert row.mean == pytest.approx(sum(values) / 3)
    assert row.spread == pytest.approx(statistics.stdev(values))
    assert [r.seed for r in row.records] == [0, 1, 2]


def test_one_seed_has_no_deviation():
    assert only([made_record()]).rows[0].spread is None


def test_runs_of_an_earlier_mixer_version_have_a_separate_row_without_a_rank(monkeypatch):
    earlier = made_record("fem", 0.9)
    monkeypatch.setattr("backbones.mixers.fem.fem.Fem.version", 99)
    name = f"fem (version {earlier.versions.mixer})"
    found = only([earlier, made_record("fem", 0.8), made_record("softmax", 0.5)])
    assert [(row.mixer, row.place) for row in found.rows] == [("fem", 1), ("softmax", 2), (name, None)]
    assert f"| earlier version | {name} |" in markdown(found)


def test_of_a_repeated_seed_the_newest_counts():
    row = only([made_record(value=0.5, name="a"), made_record(value=0.9, name="b")]).rows[0]
    assert (row.mean, len(row.records), row.first.id) == (0.9, 1, "b")


def test_an_unmatched_run_is_last_and_has_no_place():
    rows = only([made_record("fem", 0.99, matched=False), made_record("softmax", 0.5)]).rows
    assert [(row.mixer, row.place) for row in rows] == [("softmax", 1), ("fem", None)]


def test_a_matched_row_keeps_its_place_among_unmatched_ones():
    records = [
        made_record("fem", 0.99, matched=False),
        made_record("no-mixing", 0.98, matched=False),
        made_record("softmax", 0.5),
    ]
    assert [row.place for row in only(records).rows] == [1, None, None]


@pytest.mark.parametrize("sets", [("steps=77",), ("depth=2",), ("shift=1",), ("evals=2",)])
def test_runs_with_other_steps_shapes_or_data_have_separate_boards(sets):
    found = boards([made_record("softmax"), made_record("fem", sets=sets)])
    assert [len(b.rows) for b in found] == [1, 1]
    assert found[0].deviations == ()  # the shipped recipe comes first
    assert found[1].deviations == (sets[0],)
    assert sets[0] in found[1].title


def test_runs_of_another_task_version_or_other_data_have_separate_boards():
    later = made_record("fem", task_version=2)
    found = boards([made_record("softmax"), later])
    assert [b.deviations for b in found] == [(), ("version 2 of the task",)]
    changed = made_record("fem")
    changed = changed.model_copy(update={"data": changed.data.model_copy(update={"fingerprint": "0" * 64})})
    assert {b.deviations for b in boards([made_record("softmax"), changed])} == {
        (f"data {made_record('softmax').data.fingerprint[:8]}",),
        ("data 00000000",),
    }


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("precision=bf16", {"precision": "bf16"}),
        ("99", {"versions": made_record("fem").versions.model_copy(update={"training": 99})}),
    ],
)
def test_runs_of_another_precision_or_training_have_boards_with_other_titles(part, changed):
    found = boards([made_record("softmax"), made_record("fem").model_copy(update=changed)])
    assert [len(b.rows) for b in found] == [1, 1]
    assert len({b.title for b in found}) == 2
    assert any(part in b.title for b in found)


def test_switches_make_separate_rows_and_validation_chooses_among_learning_rates():
    tried = [
        made_record("fem", 0.5, valid=0.8),
        made_record("fem", 0.9, valid=0.6, sets=("lr=0.25",)),  # the best on test, which must not choose
        made_record("fem", 0.4, valid=0.81, sets=("lr=0.125",)),
    ]
    made = only(
        [*tried, made_record("fem", 0.7, sets=("lse=false",)), made_record("fem", 0.3, sets=("mixer.heads=1",))]
    )
    assert [row.mixer for row in made.rows] == ["fem (lse=off)", "fem (lr=0.125)", "fem (heads=1)"]
    assert "2 row(s) of other learning rates" in markdown(made)


def test_a_tokenizer_file_counts_by_its_content_wherever_it_is(tmp_path):
    definition = train_bpe(["some text"], 300)
    made = []
    for seed, name in enumerate(("a", "b")):
        path = tmp_path / name / "tokenizer.json"
        path.parent.mkdir()
        path.write_text(definition, "utf-8")
        sets = (f"tokenizer={path}",)
        made.append(made_record(seed=seed, task="text", sets=sets))
    [shown] = board.boards(made)
    assert [len(row.records) for row in shown.rows] == [2]


def test_a_matched_run_that_is_declared_unmatched_has_no_place():
    rows = only(
        [
            made_record("softmax"),
            made_record("fem", 0.9, matched=False),
        ]
    ).rows
    assert [(row.mixer, row.place) for row in rows] == [("softmax", 1), ("fem", None)]


def test_failed_diverged_and_interrupted_runs_are_counted_and_not_shown():
    records = [
        made_record(),
        made_record("fem", seed=0, status="failed"),
        made_record("fem", seed=1, status="diverged"),
        made_record("fem", seed=2, status="interrupted"),
    ]
    made = only(records)
    assert [row.mixer for row in made.rows] == ["softmax"]
    assert made.unfinished == 3
    assert "3 unfinished" in markdown(made)


def test_only_the_requested_boards_are_shown():
    records = [made_record(), forecast("softmax", 0.5)]
    assert [b.task for b in boards(records, task="fashion-mnist")] == ["fashion-mnist"]
    assert [b.task for b in boards(records, domain="forecasting")] == ["household-power"]
    assert boards(records, scale="paper") == []
