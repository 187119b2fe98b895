"""One run per row of a board: created, updated and deleted with the board; its note links the runs of its seeds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import suite.tracking.client
from suite.tracking.delivery import POINTS, Delivery, upload
from suite.tracking.journal import JOURNAL, STATE
from suite.tracking.ranked_board import RankedBoard, RankedRow, SeedRun, from_plain
from suite.tracking.store import Store
from suite.tracking.store_address import tracking_uri
from suite.tracking.ui.state import BoardView, board_tags, view_state, views
from tests.suite.tracking.tracked_runs import SilentWorker, points, rows, statuses, tracker

VIEW = BoardView("test/top1", False, ["tags.mixer"])
OF_TASK = {"mixer": "fem", "task": "fashion-mnist", "domain": "vision", "data.protocol": "fashion-mnist/1"}


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)


@pytest.fixture
def store(home):
    return Store(home, tracking_uri(home))


def row(mixer: str, rank: int, value: float, *runs: str) -> RankedRow:
    return RankedRow(
        key=f"key of {mixer}",
        name=f"#{rank} {mixer}",
        result=f"**#{rank} {mixer}**: {value}",
        metrics={"rank": float(rank), "value": value},
        tags={"mixer": mixer, "ranks": str(rank)},
        runs=tuple(SeedRun(run, seed, f"{value}") for seed, run in enumerate(runs)),
    )


def board(*rows: RankedRow, key: str = "b1", title: str = "board") -> RankedBoard:
    return RankedBoard(key, title, "g" * 8, "f" * 8, ("metrics.rank", "metrics.value"), rows)


def written(home, tag: str) -> dict[str, dict[str, float]]:
    """Name → metrics of the active runs with a tag."""
    found: dict[str, dict[str, float]] = {}
    for name, key, value in rows(
        home,
        "select r.name, m.key, m.value from runs r join latest_metrics m using (run_uuid) join tags t using (run_uuid) "
        "where r.lifecycle_stage = 'active' and t.key = ?",
        tag,
    ):
        found.setdefault(name, {})[key] = value
    return found


def test_a_board_has_one_run_per_row_that_a_later_publication_updates(home, store):
    number = store.experiment("vision/fashion-mnist")
    store.write_board(number, "note", VIEW, [board(row("fem", 1, 0.8), row("softmax", 2, 0.7))])
    first = dict(rows(home, "select name, run_uuid from runs"))
    assert written(home, "row") == {"#1 fem": {"rank": 1, "value": 0.8}, "#2 softmax": {"rank": 2, "value": 0.7}}
    assert statuses(home) == [("#1 fem", "FINISHED"), ("#2 softmax", "FINISHED")]
    store.write_board(number, "note", VIEW, [board(row("softmax", 1, 0.9), row("fem", 2, 0.8))])
    assert written(home, "row") == {"#2 fem": {"rank": 2, "value": 0.8}, "#1 softmax": {"rank": 1, "value": 0.9}}
    assert sorted(first.values()) == sorted(each for (each,) in rows(home, "select run_uuid from runs"))
    store.write_board(number, "note", VIEW, [board(row("softmax", 1, 0.9))])
    assert written(home, "row").keys() == {"#1 softmax"}


def test_a_row_that_loses_a_metric_is_created_again(home, store):
    number = store.experiment("vision/fashion-mnist")
    store.write_board(number, "note", VIEW, [board(row("fem", 1, 0.8))])
    without_rank = replace(row("fem", 1, 0.8), name="– fem (unmatched)", metrics={"value": 0.8})
    store.write_board(number, "note", VIEW, [board(without_rank)])
    assert written(home, "row") == {"– fem (unmatched)": {"value": 0.8}}


def test_rows_that_two_processes_created_become_one(home, store):
    number = store.experiment("vision/fashion-mnist")
    store.write_board(number, "note", VIEW, [board(row("fem", 1, 0.8))])
    store.create_run(number, "#1 fem", 1, {"board": "b1", "row": "key of fem"})
    store.write_board(number, "note", VIEW, [board(row("fem", 1, 0.8))])
    assert rows(home, "select count(*) from runs where lifecycle_stage = 'active'") == [(1,)]


def test_an_unchanged_board_writes_nothing(home, store, monkeypatch):
    number = store.experiment("vision/fashion-mnist")
    boards = [board(row("fem", 1, 0.8, "run-a"))]
    store.write_board(number, "note", VIEW, boards)
    before = rows(home, "select * from metrics"), rows(home, "select * from experiment_tags")
    store.write_board(number, "note", VIEW, boards)
    assert (rows(home, "select * from metrics"), rows(home, "select * from experiment_tags")) == before


def test_the_note_of_a_row_links_its_runs_in_this_store(home):
    with tracker(home, "run-a", tags={"run": "run-a"}) as first:
        first.log(1, {"train/loss": 1.0})
    number = Delivery(home, home / "run-a", tracking_uri(home))
    number.deliver()
    with tracker(home, "run-b", tags={"run": "run-b"}) as second:
        made = board(row("fem", 1, 0.8, "run-a", "not-tracked"))
        second.board("note", primary_metric="test/top1", ascending=False, columns=[], boards=[made])
    Delivery(home, home / "run-b", tracking_uri(home)).deliver()
    [(note,)] = rows(home, "select value from tags where key = 'mlflow.note.content'")
    assert note.splitlines()[0] == "**#1 fem**: 0.8"
    assert f"[run-a](#/experiments/1/runs/{number.run_id}?workflowType=machine_learning)" in note.replace("\\", "")
    assert "| 1 | 0.8 | not-tracked |" in note.replace("\\", "")


def test_a_damaged_board_in_a_journal_costs_only_itself(home):
    with tracker(home) as tracked:
        tracked.board("note", primary_metric="a", ascending=True, columns=[], boards=[board(row("fem", 1, 0.8))])
        tracked.log(1, {"train/loss": 1.0})
    journal = home / "run-a" / JOURNAL
    journal.write_text(journal.read_text().replace('"runs":[]', '"runs":7'))
    delivery = Delivery(home, home / "run-a", tracking_uri(home))
    delivery.deliver()
    assert delivery.refused == 1
    assert points(home, "train/loss") == [(1, 1.0)]


def test_a_board_is_the_same_from_its_plain_values():
    made = board(row("fem", 1, 0.8, "a", "b"))
    assert from_plain(json.loads(json.dumps(made.plain()))) == made


def test_each_board_has_three_views_and_the_first_one_has_the_short_names():
    made = list(views(VIEW, [board(), board(key="b2", title="quick")]))
    assert [each.name for each in made] == [
        "Board",
        "Runs",
        "Curves",
        "Board · quick",
        "Runs · quick",
        "Curves · quick",
    ]
    states = {each.name: view_state(each) for each in made}
    assert states["Board"]["searchFilter"] == "tags.board = 'b1'"
    assert (states["Board"]["orderByKey"], states["Board"]["orderByAsc"]) == ("metrics.`place`", True)
    assert states["Runs"]["searchFilter"] == "tags.`group` = 'gggggggg' and tags.`data.fingerprint` = 'ffffffff'"
    assert states["Curves"]["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "configuration"}]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Board", ["value", "exchange_rate"]),
        ("Runs", ["test/top1", "train/loss", "valid/top1"]),
        ("Curves", ["train/loss", "valid/top1", "test/top1"]),
    ],
)
def test_the_first_charts_are_the_result_and_the_loss_curves(name, first):
    state = next(view_state(each) for each in views(VIEW, [board()]) if each.name == name)
    assert [chart["metricKey"] for chart in state["compareRunCharts"] if "metricKey" in chart] == first
    shown = [section["name"] for section in state["compareRunSections"] if section["display"]]
    assert shown == list(dict.fromkeys(chart["metricSectionId"][8:] for chart in state["compareRunCharts"]))
    assert [section["name"] for section in state["compareRunSections"]][: len(shown)] == shown


def test_many_boards_stay_below_the_limits_of_the_ui_and_old_views_are_removed(home, store):
    many = [board(key=f"b{n}", title=f"steps={n}") for n in range(30)]
    tags = board_tags("note", VIEW, many)
    assert len([name for name in tags if name.startswith("mlflow.sharedViewState.")]) <= 30
    assert all(len(value) < 20_000 for value in tags.values())
    number = store.experiment("vision/fashion-mnist")
    store._client.set_experiment_tag(number, "mlflow.sharedViewState.mine", "{}")
    store.write_board(number, "note", VIEW, many)
    store.write_board(number, "note", VIEW, [board()])
    found = {name for (name,) in rows(home, "select key from experiment_tags where key like 'mlflow.shared%'")}
    assert {name.rpartition(".")[2] for name in found} == {"suiteboard", "suiteruns", "suitecurves", "mine"}


def test_a_series_has_at_most_200_points_with_the_first_and_the_last(home):
    steps = 2345
    with tracker(home, params={"train.steps": steps}) as tracked:
        for step in range(1, steps + 1):
            tracked.log(step, {"train/loss": float(step)})
            if step % 5 == 0:
                tracked.log(step, {"valid/top1": step / steps})
    delivery = Delivery(home, home / "run-a", tracking_uri(home))
    delivery.deliver()
    for metric, first in (("train/loss", 1), ("valid/top1", 5)):
        found = [step for step, _ in points(home, metric)]
        assert 150 <= len(found) <= POINTS
        assert (found[0], found[-1]) == (first, steps)
    before = points(home, "train/loss")
    (home / "run-a" / STATE).unlink()
    upload(home / "run-a", home)
    assert points(home, "train/loss") == before


def test_a_short_series_has_all_points(home):
    with tracker(home, params={"train.steps": 150}) as tracked:
        for step in range(1, 151):
            tracked.log(step, {"train/loss": float(step)})
    Delivery(home, home / "run-a", tracking_uri(home)).deliver()
    assert len(points(home, "train/loss")) == 150


def test_there_is_no_empty_default_experiment_and_one_with_runs_stays(tmp_path, home):
    assert rows(home, "select lifecycle_stage from experiments where name = 'Default'") == [("deleted",)]
    store = Store(home, tracking_uri(home))
    store._client.restore_experiment("0")
    store._client.create_run("0")
    Store(home, tracking_uri(home))
    assert rows(home, "select lifecycle_stage from experiments where name = 'Default'") == [("active",)]


def test_an_experiment_has_the_tags_of_its_task(home):
    of_experiment = {"domain": "vision", "task": "fashion-mnist", "protocol": "fashion-mnist/1"}
    with tracker(home, experiment="vision/fashion-mnist", experiment_tags=of_experiment):
        pass
    upload(home / "run-a", home)
    tags = dict(rows(home, "select key, value from experiment_tags"))
    assert tags == {**of_experiment, "mlflow.experimentKind": "custom_model_development"}


def test_the_data_of_a_run_are_its_dataset(home):
    data = {"name": "fashion-mnist", "digest": "f" * 64, "source": "zalando", "profile": '{"train": 4500}'}
    with tracker(home, dataset=data):
        pass
    upload(home / "run-a", home)
    (home / "run-a" / STATE).unlink()
    upload(home / "run-a", home)
    assert rows(home, "select name, digest, dataset_source, dataset_profile from datasets") == [
        ("fashion-mnist", "f" * 36, "zalando", '{"train": 4500}')
    ]
    assert rows(home, "select count(*) from inputs") == [(1,)]


class TestStoresOfEarlierVersions:
    """They named experiments by task, and logged attention and versions as metrics and tags."""

    @pytest.fixture
    def earlier(self, home, store):
        """A store with a run of an earlier version, whose journal is complete."""
        with tracker(home, tags={**OF_TASK, "data.fingerprint": "f" * 64, "run": "run-a"}) as tracked:
            tracked.log(1, {"train/loss": 1.0})
            tracked.summary({"test/top1": 0.8, "attention/layer1/entropy/head0": 0.5})
            tracked.set_tags({"version.torch": "2", "hardware.device": "cpu", "result": "finished"})
        number = store._client.create_experiment(
            "fashion-mnist", artifact_location=(home / "artifacts" / "fashion-mnist").as_uri()
        )
        start = json.loads((home / "run-a" / JOURNAL).read_text().splitlines()[0])
        run_id = store.create_run(number, start["run_name"], 1, {"suite.tracking_id": start["tracking_id"]})
        store.log_metrics(run_id, [("train/loss", 1.0, start["time"], 1)])
        return number, run_id

    def test_the_experiment_is_renamed_and_its_run_is_continued(self, home, earlier):
        number, run_id = earlier
        assert upload(home / "run-a", home).run_id == run_id
        found = rows(home, "select experiment_id, name from experiments where lifecycle_stage = 'active'")
        assert found == [(int(number), "vision/fashion-mnist")]
        assert statuses(home) == [("fem · quick · seed 0", "FINISHED")]
        tags = dict(rows(home, "select key, value from experiment_tags"))
        assert (tags["domain"], tags["task"], tags["protocol"]) == ("vision", "fashion-mnist", "fashion-mnist/1")

    def test_its_old_tags_and_metrics_become_a_dataset_and_a_file(self, home, earlier):
        upload(home / "run-a", home)
        names = {name for (name,) in rows(home, "select key from tags")}
        assert not {name for name in names if name.startswith(("version.", "hardware.")) or name in OF_TASK} - {"mixer"}
        assert rows(home, "select key from latest_metrics where key like 'attention%'") == []
        [path] = (home / "artifacts").rglob("attention.json")
        assert json.loads(path.read_text()) == {"attention/layer1/entropy/head0": 0.5}
        assert rows(home, "select name from datasets") == [("fashion-mnist",)]

    def test_a_board_without_rows_in_a_journal_deletes_none(self, home, store):
        number = store.experiment("fashion-mnist")
        store.write_board(number, "note", VIEW, [board(row("fem", 1, 0.8))])
        with tracker(home) as tracked:
            tracked.board("old note", primary_metric="a", ascending=True, columns=[])
        journal = home / "run-a" / JOURNAL
        journal.write_text(journal.read_text().replace(',"boards":[]', ""))
        Delivery(home, home / "run-a", tracking_uri(home)).deliver()
        assert written(home, "row").keys() == {"#1 fem"}

    def test_an_experiment_of_that_name_that_is_not_ours_stays(self, home, store):
        store._client.create_experiment("fashion-mnist")
        with tracker(home, tags=OF_TASK):
            pass
        upload(home / "run-a", home)
        names = {name for (name,) in rows(home, "select name from experiments where lifecycle_stage = 'active'")}
        assert names == {"fashion-mnist", "vision/fashion-mnist"}

    def test_a_run_in_an_experiment_that_an_earlier_version_made_again_is_found(self, home, store, earlier):
        _, run_id = earlier
        store._client.create_experiment("vision/fashion-mnist")
        assert upload(home / "run-a", home).run_id == run_id
        assert len(statuses(home)) == 1
