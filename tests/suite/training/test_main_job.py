"""The main use, as a user runs it: with tracking, in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from suite.records.schema import Record
from tasks.images.imagenet import class_list
from tests.suite.tracking.tracked_runs import points, rows, statuses
from tests.tasks.conftest import save_image

pytestmark = pytest.mark.slow
TINY = (
    "--steps",
    "6",
    "--set",
    "evals=2",
    "--set",
    "batch_size=4",
    "--set",
    "model.dim=48",
    "--set",
    "ffn_width=88",
    "--set",
    "depth=2",
)


#: What deviates from the recipe, as names of runs have it.
SHOWN = "length=32, test_limit=8, dim=48, depth=2 and 4 more"


def suite(runs, *arguments, **environment):
    """Runs the command line in a new process; stdout is its one JSON document where there is one."""
    variables = {**os.environ, "SUITE_HOME": str(runs), "OMP_NUM_THREADS": "1", **environment}
    variables.pop("SUITE_TRACKING", None)
    return subprocess.run(
        [sys.executable, "-m", "suite", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def mapping(runs: Path, query: str) -> dict[str, Any]:
    """The rows of a query for a key and a value."""
    return {str(key): value for key, value in rows(runs, query)}


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """A folder with the 100 classes, three training images and one test image per class, of mixed sizes, some of them
    grey.
    """
    root = tmp_path_factory.mktemp("images")
    for part, count in (("train", 3), ("val", 1)):
        for label, name in enumerate(class_list()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                save_image(
                    folder / f"{i}.JPEG",
                    "L" if (label + i) % 4 == 0 else "RGB",
                    30 + label % 40,
                    25 + 7 * i,
                    10 * label + i,
                )
    return root


def test_the_store_has_all_of_a_run_and_its_board(runs):
    few = ("--set", "data.length=32", "--set", "test_limit=8")
    done = suite(runs, "run", "--task", "sotu", "--mixer", "fem", "--unmatched", *TINY, *few, "--json")
    assert done.returncode == 0, done.stderr
    made = Record.model_validate_json(done.stdout)
    names = dict(statuses(runs))
    assert names == {"fem · quick · seed 0 · " + SHOWN: "FINISHED", "– fem (unmatched)": "FINISHED"}
    assert made.mlflow is not None
    assert [(made.mlflow.run_id,)] == rows(runs, "select run_uuid from runs where name like '%seed 0%'")
    metrics = mapping(runs, "select key, value from latest_metrics")
    assert metrics["test/bits_per_byte"] == made.metrics["test"]["bits_per_byte"]
    assert not [name for name in metrics if name.startswith("attention")]
    [attention] = (runs / "artifacts").rglob("attention.json")
    assert "attention/layer1/entropy/head0" in json.loads(attention.read_text())
    parameters = mapping(runs, "select key, value from params")
    assert parameters["train.steps"] == "6"
    assert parameters["budget.parameters"] == str(made.certificate.parameters)
    tags = mapping(runs, "select key, value from tags")
    assert made.data is not None
    assert (tags["identity"], tags["data.fingerprint"]) == (made.identity, made.data.fingerprint)
    assert [step for step, _ in points(runs, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert {path.name for path in (runs / "artifacts").rglob("*.*")} >= {"record.json", "attention.png"}
    of_experiment = mapping(runs, "select key, value from experiment_tags")
    assert "fem" in of_experiment["mlflow.note.content"]
    view = next(
        json.loads(value) for name, value in of_experiment.items() if name.startswith("mlflow.sharedViewState.")
    )
    assert "place" in json.loads(view["state"])["orderByKey"]
    notes = [note for (note,) in rows(runs, "select value from tags where key = 'mlflow.note.content'")]
    assert [made.mlflow.run_id in note for note in notes] == [True]


def test_a_run_without_its_tracking_server_finishes_and_is_uploaded_later(runs):
    gone = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = suite(
        runs,
        "run",
        "--task",
        "household-power",
        "--mixer",
        "softmax",
        *TINY,
        "--set",
        "test_limit=16",
        "--json",
        **gone,
    )
    assert done.returncode == 0, done.stderr
    assert "suite upload" in done.stderr
    made = Record.model_validate_json(done.stdout)
    assert made.status == "finished"
    sent = suite(runs, "upload", made.id, "--json")
    assert sent.returncode == 0, sent.stderr
    assert [(json.loads(sent.stdout)["mlflow_run"],)] == rows(runs, "select run_uuid from runs")
    assert [status for name, status in statuses(runs) if name.startswith("softmax · quick · seed 0")] == ["FINISHED"]
    assert mapping(runs, "select key, value from latest_metrics")["test/mse"] == made.metrics["test"]["mse"]


def test_imagenet100_trains_from_a_local_folder(runs, folder_of_images):
    small = ("--set", "image_size=48", "--set", "patch=16", "--set", "test_limit=0", "--set", "valid_limit=0")
    data = ("--data-dir", str(folder_of_images))
    done = suite(runs, "run", "--task", "imagenet100", "--mixer", "fem", *data, "--unmatched", *TINY, *small, "--json")
    assert done.returncode == 0, done.stderr
    made = Record.model_validate_json(done.stdout)
    assert (made.status, made.n_evaluated) == ("finished", {"valid": 100, "test": 100})
    assert made.data is not None
    assert made.data.details["class_list"] == "imagenet100_cmc"
    assert str(folder_of_images) not in done.stdout


def test_a_corrupt_image_is_one_line(runs, folder_of_images, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(folder_of_images), str(broken)], check=True)
    victim = broken / "val" / class_list()[3] / "0.JPEG"
    victim.write_bytes(victim.read_bytes()[:80])
    done = suite(runs, "data", "prepare", "imagenet100", "--data-dir", str(broken))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{class_list()[3]}/0.JPEG" in done.stderr


def test_both_mixers_are_on_one_board(runs):
    for mixer in ("softmax", "fem"):
        done = suite(
            runs,
            "run",
            "--task",
            "fashion-mnist",
            "--mixer",
            mixer,
            "--scale",
            "board",
            "--steps",
            "4",
            "--set",
            "evals=1",
        )
        assert done.returncode == 0, done.stderr
    shown = suite(runs, "leaderboard", "--task", "fashion-mnist", "--json")
    (one,) = json.loads(shown.stdout)
    assert {row["mixer"] for row in one["rows"]} == {"softmax", "fem"}
    assert [row["place"] for row in one["rows"]] == [1, 2]
