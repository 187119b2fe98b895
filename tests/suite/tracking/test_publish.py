"""`suite publish`: runs, rows, views and the page, from records and journals, also after the store was deleted."""

from __future__ import annotations

import json
import shutil

import pytest

import suite.tracking.client
from suite.boards.board import boards, primary_metric
from suite.boards.tracked import publish
from suite.boards.tracked.opening import opening
from suite.boards.tracked.rebuild import rebuild
from suite.records import record
from tests.suite.tiny import made_record
from tests.suite.tracking.tracked_runs import SilentWorker, free_port, mlflow_server, points, rows, statuses

pytestmark = pytest.mark.slow  # each trains, or draws boards

SETTINGS = ("lr=3e-4", "steps=40")


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(suite.tracking.client, "WorkerProcess", SilentWorker)


@pytest.fixture(scope="module")
def published(tmp_path_factory, empty_store):
    """A runs folder with the records of two mixers, and the store that was made of them."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("published") / "runs")
    for mixer, value in (("softmax", 0.5), ("fem", 0.6)):
        for seed in range(2):
            keep(folder, made_record(mixer, value + seed / 100, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUITE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        rebuild()
    return folder


@pytest.fixture(autouse=True)
def runs(published, tmp_path, monkeypatch):
    """A copy of that folder; its artifacts stay in the original one."""
    folder = shutil.copytree(published, tmp_path / "copy")
    monkeypatch.setenv("SUITE_HOME", str(folder))
    monkeypatch.setattr("suite.boards.tracked.rebuild.page_files", lambda _: {})
    return folder


def keep(folder, made):
    (folder / made.id).mkdir(parents=True, exist_ok=True)
    record.write(folder / made.id, made)
    return made


def track(home, made, *, steps=range(1, 6)):
    """A run tracked as the runner does it, with its record."""
    begun = opening(made)
    tracked = suite.tracking.client.Tracker(
        home=home, run_dir=home / made.id, warn=lambda _: None, **{name: getattr(begun, name) for name in FIELDS}
    )
    metrics, tags = publish.results_of_run(made, primary_metric(made))
    for step in steps:
        tracked.log(step, {"train/loss": 1 / step, "valid/top1": step / 100})
    tracked.summary(metrics)
    tracked.set_tags(tags)
    tracked.finish("FINISHED")
    return keep(home, made)


FIELDS = ("experiment", "experiment_tags", "run_name", "params", "tags", "dataset")


def stored(home) -> dict[str, object]:
    """What a store has, apart from the page."""
    series = {metric: sorted(points(home, metric)) for metric in ("valid/top1", "train/loss")}
    return {"names": [name for name in names(home) if "page" not in name], **series}


def names(home) -> list[str]:
    return sorted(name for (name,) in rows(home, "select name from runs where lifecycle_stage = 'active'"))


def test_a_store_is_made_from_records(runs, published):
    seeds = [f"{mixer} · board · seed {seed}" for mixer in ("softmax", "fem") for seed in range(2)]
    assert names(runs) == sorted([*seeds, "#1 fem", "#2 softmax", "page and plots of the boards"])
    assert {status for _, status in statuses(runs)} == {"FINISHED"}
    of_experiment = dict(rows(runs, "select key, value from experiment_tags"))
    assert of_experiment["domain"] == "vision"
    views = {name.rpartition(".")[2] for name in of_experiment if "shared" in name}
    assert views == {"suiteboard", "suiteruns", "suitecurves"}
    files = {path.name for path in (published / "artifacts" / "vision" / "fashion-mnist").rglob("*.*")}
    assert files >= {"index.html", "board.json", "boards.csv", "record.json"}
    assert any(name.endswith(".svg") for name in files)


def test_a_repetition_changes_nothing(runs):
    tables = ("runs", "metrics", "params", "tags", "inputs", "experiment_tags")
    before = {table: rows(runs, f"select * from {table}") for table in tables}
    done = rebuild()
    assert (done.runs, done.added, done.completed, done.rows) == (4, [], [], {"fashion-mnist": 2})
    assert {table: rows(runs, f"select * from {table}") for table in tables} == before


def test_a_deleted_store_gets_the_journals_back_in_full(runs):
    made = track(runs, made_record("gla", 0.55, name="tracked-gla"))
    rebuild()
    before = stored(runs)
    for (table,) in rows(runs, "select name from sqlite_master where type = 'table' and name != 'alembic_version'"):
        rows(runs, f"delete from {table}")  # MLflow keeps the file open in this process
    done = rebuild()
    assert stored(runs) == before
    assert len(done.added) == 4  # the tracked one came from its journal
    assert made.id in {value for (value,) in rows(runs, "select value from tags where key = 'run'")}


def test_published_records_are_shown_and_their_own_journal_replaces_them(runs, tmp_path):
    made = made_record("gla", 0.55, name="tracked-gla")
    entries = tmp_path / "entries"
    keep(entries, made)
    assert rebuild(folder=entries).added == ["tracked-gla"]
    assert points(runs, "valid/top1", _id_of(runs, made.id)) == [(max(made.config.train.trace_steps), 0.55)]
    track(runs, made)
    rebuild()
    assert len([name for name in names(runs) if name.startswith("gla ·")]) == 1
    assert len(points(runs, "valid/top1", _id_of(runs, "tracked-gla"))) > 1


def _id_of(home, run: str) -> str:
    query = (
        "select run_uuid from runs join tags using (run_uuid) where key = 'run' and value = ? and lifecycle_stage = ?"
    )
    [(found,)] = rows(home, query, run, "active")
    return str(found)


def test_a_run_of_an_earlier_version_gets_what_it_lacked(runs):
    rows(runs, "update runs set name = 'fem · old' where name = 'fem · board · seed 0'")
    rows(runs, "update tags set key = 'version.torch' where key = 'configuration'")
    rows(runs, "delete from inputs")
    assert len(rebuild().completed) == 4
    assert "fem · board · seed 0" in names(runs)
    assert ("fem",) in rows(runs, "select value from tags where key = 'configuration'")
    assert rows(runs, "select * from tags where key = 'version.torch'") == []
    assert rows(runs, "select count(*) from inputs") == [(4,)]


def test_only_one_task_is_published_where_that_is_asked(runs):
    keep(runs, made_record("softmax", 0.6, task="household-power", name="power"))
    assert rebuild("household-power").rows == {"household-power": 1}
    assert len([name for name in names(runs) if "seed" in name]) == 5
    assert len(rows(runs, "select * from experiments where lifecycle_stage = 'active'")) == 2


def test_a_refused_record_is_reported(runs):
    (runs / "fem-0" / record.NAME).write_text("{}")
    done = rebuild()
    assert done.runs == 3
    assert "fem-0" in done.refused[0]


def test_a_run_has_about_fifteen_tags(runs):
    made = track(runs, made_record("gla", 0.55, name="tracked-gla"))
    rebuild()
    found = {key for (key,) in rows(runs, "select key from tags where run_uuid = ?", _id_of(runs, made.id))}
    shown = {key for key in found if not key.startswith("mlflow.")}
    assert shown >= {"mixer", "configuration", "scale", "seed", "matched", "identity", "group", "run", "result"}
    assert len(shown) <= 16
    params = dict(rows(runs, "select key, value from params where run_uuid = ?", _id_of(runs, made.id)))
    assert (params["version.torch"], params["hardware.device"]) == ("0", "cpu")


def test_names_of_runs_have_what_differs_from_the_recipe():
    assert opening(made_record("fem")).run_name == "fem · board · seed 0"
    made = opening(made_record("fem", sets=SETTINGS, seed=3))
    assert made.run_name == "fem (lr=0.0003) · board · seed 3 · steps=40"
    assert made.tags["configuration"] == "fem (lr=0.0003)"
    assert made.experiment == "vision/fashion-mnist"
    many = ("steps=40", "batch_size=16", "depth=2", "dim=32", "warmup=0", "evals=2")
    assert opening(made_record("fem", sets=many)).run_name.endswith(" and 2 more")


def test_rows_have_the_figures_of_the_board():
    [board] = boards([made_record("fem", 0.6, seed=0), made_record("fem", 0.61, seed=1)])
    [row] = publish.ranked(board).rows
    assert (row.name, row.metrics["rank"], row.metrics["seeds"]) == ("#1 fem", 1, 2)
    assert row.metrics["value"] == pytest.approx(0.605)
    assert row.metrics.keys() >= {"half_width", "flops", "state_bytes"}
    unmatched = made_record("no-mixing", 0.9, matched=False)
    [board] = boards([unmatched])
    [row] = publish.ranked(board).rows
    assert row.name == "– no-mixing (unmatched)"
    assert "rank" not in row.metrics


def test_rows_that_no_test_separates_share_a_rank_and_keep_their_order():
    values = {"fem": (0.60, 0.61, 0.62), "gla": (0.61, 0.60, 0.61), "softmax": (0.10, 0.11, 0.12)}
    made = [made_record(mixer, value, seed=seed) for mixer, each in values.items() for seed, value in enumerate(each)]
    [board] = boards(made)
    found = publish.ranked(board)
    assert [row.name for row in found.rows] == ["#1–2 fem", "#1–2 gla (host prior)", "#3 softmax"]
    assert [(row.metrics["rank"], row.metrics["place"]) for row in found.rows] == [(1, 1), (1, 2), (3, 3)]
    assert found.columns[0] == "metrics.rank"
    assert "metrics.place" not in found.columns
    [board] = boards([made_record("fem", 0.6)])
    [row] = publish.ranked(board).rows  # one seed is no rank
    assert (row.name, row.metrics["place"], "rank" in row.metrics) == ("– fem", 1, False)


def test_the_command_prints_what_the_store_has_and_explains_an_unreachable_one(runs, suite, monkeypatch):
    ended = suite("publish", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["rows"] == {"fashion-mnist": 2}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{free_port()}")
    ended = suite("publish")
    assert ended.code == 2
    assert "no server is running there" in ended.err
    assert "secret" not in ended.err


def test_a_sweep_publishes_its_boards_at_its_end_and_survives_a_store_that_is_away(runs, monkeypatch, capsys):
    from suite.cli.commands import sweep

    monkeypatch.delenv("SUITE_TRACKING", raising=False)
    keep(runs, made_record("gla", 0.55))
    sweep._publish(["fashion-mnist", "fashion-mnist", "sotu"])
    assert "– gla (host prior)" in names(runs)  # one seed is no rank
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    sweep._publish(["fashion-mnist"])
    assert "no server is running there" in capsys.readouterr().err


def test_a_server_gets_the_same_as_the_embedded_store(runs, tmp_path, monkeypatch):
    embedded = names(runs)
    with mlflow_server(tmp_path / "server", free_port()) as base:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        monkeypatch.setattr("suite.boards.tracked.rebuild.page_files", lambda _: {"index.html": "<p>page</p>"})
        assert len(rebuild().added) == 4
        assert rebuild().added == []
    assert names(tmp_path / "server") == embedded
    assert {path.name for path in (tmp_path / "server" / "artifacts").rglob("*.*")} == {"index.html", "record.json"}


def test_every_figure_of_the_test_reaches_the_store_also_without_variant_layers():
    made = made_record("fem", 0.6)
    skipped = {name: value + 1 for name, value in made.metrics["test"].items()}
    made = made.model_copy(update={"metrics": {**made.metrics, "test_skip": skipped}})
    metrics, _ = publish.results_of_run(made, primary_metric(made))
    for split in ("test", "test_skip"):
        assert metrics.items() >= {f"{split}/{name}": value for name, value in made.metrics[split].items()}.items()
