"""Forecasting runs: what validation may see, the board of the searched track, and pictures of forecasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import tasks
from suite.boards import board
from suite.cli.commands.run import report_run
from suite.models.resolve import resolve, resolve_run
from suite.records.recorded import RecordedConfig
from suite.training.evaluate import IncompleteEvaluation, evaluate
from suite.training.run import start
from tasks.base import Split
from tasks.series.forecasting import HouseholdPower
from tasks.series.options import SearchedOptions
from tasks.series.published import Etth1, Exchange
from tests.suite.tiny import certify, made_record, tiny_config, tiny_sets
from tests.tasks.series.series_files import write_ett, write_exchange, write_gluonts
from tests.tolerances import FP32

SMALL = (
    "dim=32",
    "model.heads=2",
    "depth=1",
    "ffn_width=88",
    "batch_size=8",
    "steps=6",
    "evals=3",
    "valid_limit=8",
    "test_limit=8",
)


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


@pytest.mark.slow
def test_no_test_window_has_a_part_in_training_or_selection(tmp_path, runs):
    """Other values in the test part change the test figures and nothing else of the run."""
    plain = write_exchange(tmp_path)
    lines = plain.read_text().splitlines()
    valid_end = Exchange()._ends(Exchange.rows)[1]
    changed = [line if i <= valid_end else line + "1" for i, line in enumerate(lines)]
    other = tmp_path / "other.csv"
    other.write_text("\n".join(changed))
    config = resolve(task="exchange", mixer="softmax", scale="board", horizon=8, sets=SMALL)
    a, b = (start(config, data_dir=path, device="cpu").record for path in (plain, other))
    assert a.status == b.status == "finished"
    assert a.data != b.data
    assert a.loss_trace == b.loss_trace
    assert a.selection == b.selection
    assert a.metrics["valid"] == b.metrics["valid"]
    assert a.metrics["test"] != b.metrics["test"]
    assert a.n_evaluated == {"valid": 8, "test": 8}


@pytest.mark.slow
def test_a_picture_of_a_few_test_windows_is_drawn_and_tracked(runs):
    made = start(tiny_config("household-power"), data_dir=None, device="cpu")
    picture = runs / made.record.id / "forecasts.png"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    assert '"path":"forecasts.png"' in (runs / made.record.id / "tracking.jsonl").read_text().replace('": "', '":"')
    task = HouseholdPower(tiny_config("household-power").data)
    scored = next(task.eval_batches("test", 16))
    some = task.windows("test", np.array([0, 15]))
    assert torch.equal(some.targets, scored.targets[[0, 15]])
    assert torch.equal(some.inputs, scored.inputs[[0, 15]])


class LastValue(torch.nn.Module):
    """Repeats half of the last value: nothing is learned, but every window has another forecast."""

    def __init__(self, horizon):
        super().__init__()
        self.horizon = horizon

    def forward(self, x_BNC):
        return 0.5 * x_BNC[:, -1:].expand(-1, self.horizon, -1)


@pytest.fixture(scope="module")
def ett_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ett")
    write_ett(folder)
    return folder


@pytest.mark.parametrize("horizon", [96, *(pytest.param(h, marks=pytest.mark.slow) for h in (192, 336, 720))])
def test_every_ett_window_is_evaluated_whatever_the_batch_size(horizon, ett_folder, monkeypatch):
    monkeypatch.setattr(Etth1, "known", "")  # other values than the published ones, and as many
    task = Etth1(SearchedOptions(track="fixed-96", horizon=horizon, valid_limit=0), ett_folder)
    task.load()
    windows: dict[Split, int] = {
        "train": 8_640 - 96 - horizon + 1,
        "valid": 2_880 - horizon + 1,
        "test": 2_880 - horizon + 1,
    }
    for split, expected in windows.items():
        figures = []
        for size in (32, 1000) if split == "train" else (1, 7, 32):
            found, seen = evaluate(
                LastValue(horizon), task, split, batch_size=size, device=torch.device("cpu"), precision="fp32"
            )
            assert seen == task.n_examples(split) == expected
            figures.append(found)
        assert all(other == pytest.approx(figures[0], rel=1e-11) for other in figures[1:])


@pytest.mark.parametrize("mixer", ["softmax", pytest.param("fem", marks=pytest.mark.slow)])
def test_a_forecasters_metrics_do_not_depend_on_the_evaluation_batch_size(mixer):
    """Its batch norm must use the statistics of training, not those of the evaluated batch."""
    sets = tiny_sets("household-power", "valid_limit=45", "test_limit=45", "head=quantile")
    made = resolve_run(task="household-power", mixer=mixer, scale="board", sets=sets)
    config, candidate = made.config, made.candidate
    task = tasks.get("household-power")(config.data)
    torch.manual_seed(0)
    model = candidate.build(config, task, candidate.plan(config, task.spec))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _, batch in zip(range(4), task.train_batches(0, 8), strict=False):
        optimizer.zero_grad()
        task.loss(model(batch.inputs), batch).backward()
        optimizer.step()
    assert model.training
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        figures = []
        for size in (1, 7, 32):
            found, seen = evaluate(model, task, split, batch_size=size, device=torch.device("cpu"), precision="fp32")
            assert seen == task.n_examples(split) == 45
            figures.append(found)
        assert set(figures[0]) == {"crps", "mase", "mse", "mae", "loss"}
        assert all(other == pytest.approx(figures[0], rel=FP32) for other in figures[1:])


def test_an_evaluation_that_drops_the_last_batch_is_refused(ett_folder, monkeypatch):
    monkeypatch.setattr(Etth1, "known", "")
    task = Etth1(SearchedOptions(track="fixed-96"), ett_folder)
    task.load()
    whole = task.eval_batches
    monkeypatch.setattr(
        task, "eval_batches", lambda split, size, workers=0: (b for b in whole(split, size) if b.size == size)
    )
    with pytest.raises(IncompleteEvaluation, match="etth1: 2784 examples of test were evaluated, it has 2785"):
        evaluate(LastValue(96), task, "test", batch_size=32, device=torch.device("cpu"), precision="fp32")


@pytest.mark.parametrize("head", ["student-t", pytest.param("quantile", marks=pytest.mark.slow)])
def test_a_run_with_a_distribution_is_selected_by_crps_and_draws_its_band(head, runs, capsys):
    outcome = start(tiny_config("household-power", "fem", f"head={head}"), data_dir=None, device="cpu")
    made = outcome.record
    report_run(outcome, quiet=False)
    assert f"test crps {made.metrics['test']['crps']:.4f} of the mean absolute value" in capsys.readouterr().out
    point = tiny_config("household-power", "fem")
    assert made.status == "finished"
    assert made.primary_metric == "crps"
    assert set(made.metrics["test"]) == {"crps", "mase", "mse", "mae", "loss"}
    assert made.selection is not None
    assert made.selection.value == made.metrics["valid"]["crps"]
    assert made.group != point.group
    plain = certify(point)
    assert (made.certificate.parameters, made.certificate.matched) == (plain.parameters, True)
    assert made.certificate.total_parameters > plain.total_parameters
    assert (runs / made.id / "forecasts.png").is_file()


@pytest.mark.filterwarnings("ignore:Using `json`-module for json-handling:UserWarning")
@pytest.mark.parametrize(
    "mixer",
    ["fem", *(pytest.param(f"baseline/{name}", marks=pytest.mark.slow) for name in ("seasonal-naive", "ridge"))],
)
def test_a_gluonts_data_set_is_trained_on_and_recorded(mixer, tmp_path, runs):
    write_gluonts(tmp_path)
    sets = ("dataset=power_hourly", "look_back=48", "head=quantile", "steps=4", "evals=2", "batch_size=16")
    made = start(resolve(task="gluonts", mixer=mixer, scale="board", sets=sets), data_dir=tmp_path, device="cpu").record
    assert (made.status, made.error) == ("finished", None)
    assert made.certificate.matched == (mixer == "fem")
    assert made.n_evaluated == {"valid": 12, "test": 12}
    assert set(made.metrics["test"]) == {"crps", "mase", "mse", "mae", "loss"}
    assert made.config.canonical()["data"]["dataset"] == "power_hourly"
    assert (runs / made.id / "forecasts.png").is_file()


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_does_not_fail_the_run(runs, monkeypatch, capsys):
    monkeypatch.setattr("tasks.series.forecasting.draw_forecasts", lambda *_: 1 / 0)
    made = start(tiny_config("household-power"), data_dir=None, device="cpu").record
    assert made.status == "finished"
    assert "could not be drawn: ZeroDivisionError" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("mixer", ["softmax", "hypermlp", "fem"])
def test_a_board_keeps_the_look_back_that_validation_selected(mixer):
    """Also where the solver's widths differ per look-back: HyperMLP's depend on the length."""

    def trial(look_back, valid, test, *more):
        sets = ("track=searched", f"look_back={look_back}", *more)
        return made_record(
            mixer,
            test,
            task="weather",
            sets=sets,
            valid=valid,
            name=f"l{look_back}",
        )

    records = [trial(96, 0.5, 0.1), trial(336, 0.3, 0.4), trial(720, 0.4, 0.2)]
    assert mixer != "hypermlp" or len({str(made.config.mixer_options) for made in records}) > 1
    [shown] = board.boards(records)
    [row] = shown.rows
    assert row.mixer.startswith(mixer)
    assert row.mixer.endswith("look_back=336)")
    assert row.mean == 0.4
    assert shown.other_rates == 2
    [pinned] = board.boards([trial(336, 0.3, 0.4), trial(336, 0.2, 0.5, "mixer.heads=1")])
    assert len(pinned.rows) == 2  # another option is another row
    fixed = made_record(task="weather", name="fixed")
    assert len(board.boards([*records, fixed])) == 2


@pytest.mark.parametrize("own", [True, False])
def test_options_of_code_that_no_board_imports_keep_their_own_rows(own):
    """A baseline's or a third party's: which widths the solver chose is unknown, so the rows stay separate."""

    def trial(penalty, valid, test):
        sets = ("track=searched", "look_back=336", f"mixer.penalty={penalty}")
        made = made_record(
            "baseline/ridge",
            test,
            task="weather",
            sets=sets,
            valid=valid,
            matched=False,
            name=f"p{penalty}",
        )
        theirs = {**made.config.portable(), "mixer": "theirs", "mixer_origin": "their-package 1.0"}
        return made if own else made.model_copy(update={"config": RecordedConfig.model_validate(theirs)})

    [shown] = board.boards([trial(1, 0.5, 0.1), trial(1000, 0.3, 0.4)])
    assert (len(shown.rows), shown.other_rates) == (2, 0)
