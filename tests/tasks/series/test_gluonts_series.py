"""GluonTS's data sets: layout, splitter and scores equal the suite's windows and sums."""

from __future__ import annotations

import gzip
import json
import logging

import numpy as np
import pytest
import torch

from tasks.base import DataError
from tasks.series import gluonts_repository
from tasks.series.gluonts import GluontsSeries
from tasks.series.heads import LEVELS, quantiles_of
from tasks.series.options import RepositoryOptions
from tests.tasks.series.series_files import write_gluonts

pytestmark = pytest.mark.filterwarnings("ignore:Using `json`-module for json-handling:UserWarning")
LOOK_BACK, HORIZON = 96, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("gluonts")
    write_gluonts(root)
    write_gluonts(root, "rolling_hourly", rolling=3)
    return root


def made(folder, dataset="power_hourly", **options):
    task = GluontsSeries(RepositoryOptions(dataset=dataset, look_back=LOOK_BACK, **options), folder)
    task.load()
    return task


def entries(folder, part, dataset="power_hourly"):
    with gzip.open(folder / dataset / part / "data.json.gz", "rt") as lines:
        return [np.array(json.loads(line)["target"], dtype=np.float64) for line in lines]


def everything(task, split, size=5):
    batches = list(task.eval_batches(split, size))
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("inputs", "targets", "series_B")]


def rewrite(folder, part, change):
    """Changes the entries of a part in place."""
    path = folder / part / "data.json.gz"
    with gzip.open(path, "rt") as lines:
        found = [json.loads(line) for line in lines]
    change(found)
    path.write_bytes(gzip.compress("".join(json.dumps(entry) + "\n" for entry in found).encode(), mtime=0))


def test_every_window_of_every_series_is_yielded_once(folder):
    task = made(folder)
    lengths = [150 + 40 * i for i in range(12)]
    assert task.n_examples("train") == sum(n - HORIZON - LOOK_BACK - HORIZON + 1 for n in lengths)
    assert task.n_examples("valid") == task.n_examples("test") == 12
    assert (task.spec.horizon, task.spec.look_back, task.spec.channels, task.spec.season) == (24, 96, 1, 24)
    inputs, targets, series = everything(task, "train", 64)
    seen = {
        (int(i), window.numpy().tobytes()) for i, window in zip(series, torch.cat([inputs, targets], 1), strict=True)
    }
    place = 0
    for i, whole in enumerate(entries(folder, "train")):
        part = whole[:-HORIZON]
        scaled = ((part - part.mean()) / part.std()).astype(np.float32)
        for at in range(len(part) - LOOK_BACK - HORIZON + 1):
            assert (i, scaled[at : at + LOOK_BACK + HORIZON, None].tobytes()) in seen
            place += 1
    assert place == len(series)


def test_validation_and_test_are_the_ends_of_the_training_and_test_series(folder):
    task = made(folder)
    for split, part in (("valid", "train"), ("test", "test")):
        inputs, targets, series = everything(task, split)
        assert series.tolist() == list(range(12))
        for i, (whole, train) in enumerate(zip(entries(folder, part), entries(folder, "train"), strict=True)):
            fitted = train[:-HORIZON]
            scaled = torch.from_numpy((whole - fitted.mean()) / fitted.std()).float()
            assert torch.allclose(targets[i, :, 0], scaled[-HORIZON:], atol=1e-6)
            assert torch.allclose(inputs[i, :, 0], scaled[-HORIZON - LOOK_BACK : -HORIZON], atol=1e-6)


def test_the_scaler_never_sees_validation_or_test(folder, tmp_path):
    write_gluonts(tmp_path)
    rewrite(
        tmp_path / "power_hourly",
        "train",
        lambda all_: [e.update(target=[*e["target"][:-24], *[1e4] * 24]) for e in all_],
    )
    rewrite(
        tmp_path / "power_hourly",
        "test",
        lambda all_: [e.update(target=[*e["target"][:-48], *[1e4] * 24, *[-1e4] * 24]) for e in all_],
    )
    plain, disturbed = made(folder), made(tmp_path)
    assert np.array_equal(plain.mean, disturbed.mean)
    assert np.array_equal(plain.std, disturbed.std)
    assert torch.equal(plain.series, disturbed.series)
    assert not torch.equal(everything(plain, "test")[1], everything(disturbed, "test")[1])
    assert plain.fingerprint != disturbed.fingerprint


def test_rolling_test_windows_belong_to_the_series_that_they_continue(folder):
    task = made(folder, "rolling_hourly")
    inputs, targets, series = everything(task, "test")
    assert series.tolist() == [*range(12)] * 3
    assert torch.equal(inputs[12:24, -HORIZON:], targets[:12])
    nameless = GluontsSeries(task.options, folder)
    data = gluonts_repository.read(folder / "rolling_hourly")
    stripped = tuple({k: v for k, v in e.items() if k != "item_id"} for e in data.train)
    without = gluonts_repository.Repository(data.frequency, data.horizon, stripped, data.test)
    nameless._know()
    nameless._cut(without)
    assert nameless.owners["test"].tolist() == series.tolist()


def test_a_short_series_is_extended_backwards_and_the_info_reports_it(tmp_path):
    write_gluonts(tmp_path)

    def cut(found):
        found[3]["target"] = found[3]["target"][:60]
        found[4]["target"] = found[4]["target"][:20]

    rewrite(tmp_path / "power_hourly", "train", cut)
    rewrite(
        tmp_path / "power_hourly",
        "test",
        lambda found: [e.update(target=e["target"][:n]) for e, n in ((found[3], 84), (found[4], 44))],
    )
    task = made(tmp_path)
    assert "1 series, shorter than a training window" in task.info().notes[-1]
    inputs, _, series = everything(task, "train", 512)
    short = inputs[series == 3][..., 0]
    assert short.shape == (1, 96)
    assert torch.equal(short[0, :85], short[0, :1].expand(85))
    assert (series == 4).sum() == 0
    assert everything(task, "valid")[2].tolist() == [0, 1, 2, 3, *range(5, 12)]
    inputs, _, series = everything(task, "test")
    assert series.tolist() == list(range(12))
    assert torch.equal(inputs[4, :77, 0], inputs[4, :1, 0].expand(77))
    assert inputs.isfinite().all()


@pytest.mark.parametrize("head", ["point", "student-t", "quantile"])
@pytest.mark.parametrize("size", [1, 7, 32])
def test_scores_do_not_change_with_the_batch_size(folder, head, size):
    task = made(folder, "rolling_hourly", head=head)
    whole = summed(task, 36)
    assert summed(task, size) == pytest.approx(whole, rel=1e-12)
    assert set(whole) == {metric.name for metric in task.metrics}


def forecast(task, batch):
    """The last day again, with a spread."""
    point = batch.inputs[:, -HORIZON:] + 0.1
    if task.options.head == "point":
        return point
    if task.options.head == "quantile":
        return point.unsqueeze(-1) + torch.linspace(-0.8, 0.8, 9)
    return torch.stack([point, 0.3 + point.abs(), 3 + point.abs()], dim=-1)


def summed(task, size):
    totals: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches("test", size):
        for name, (total, count) in task.measure(forecast(task, batch), batch).items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + total, before[1] + count)
    return task.summarise(totals)


@pytest.mark.parametrize("head", ["student-t", "quantile"])
def test_crps_and_mase_equal_gluonts_evaluate_forecasts_and_a_loop(folder, head):
    """GluonTS's evaluation, end to end, on the original values and with its own seasonal error."""
    from gluonts.dataset.common import load_datasets
    from gluonts.dataset.split import split
    from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
    from gluonts.model import evaluate_forecasts
    from gluonts.model.forecast import QuantileForecast

    task = made(folder, head=head)
    [batch] = task.eval_batches("test", 12)
    scale, shift = (torch.from_numpy(values).view(-1, 1, 1, 1) for values in (task.std, task.mean))
    quantiles = (quantiles_of(task.options.head, forecast(task, batch).double()) * scale + shift)[
        :, :, 0
    ].numpy()  # [series, steps, levels]
    there = folder / "power_hourly"
    loaded = load_datasets(there, there / "train", there / "test")
    _, template = split(loaded.test, offset=-HORIZON)
    test_data = template.generate_instances(prediction_length=HORIZON)
    keys = [str(level) for level in LEVELS]
    forecasts = [
        QuantileForecast(forecast_arrays=quantiles[i].T, start_date=label["start"], forecast_keys=keys)
        for i, label in enumerate(test_data.label)
    ]
    table = evaluate_forecasts(
        forecasts, test_data=test_data, metrics=[MASE(), MeanWeightedSumQuantileLoss(LEVELS)], axis=None
    )
    found = summed(task, 5)
    assert found["crps"] == pytest.approx(table["mean_weighted_sum_quantile_loss"].item(), rel=1e-5)
    assert found["mase"] == pytest.approx(table["MASE[0.5]"].item(), rel=1e-5)
    loss = weight = scaled = 0.0
    for i, (train, test) in enumerate(zip(entries(folder, "train"), entries(folder, "test"), strict=True)):
        season = np.mean([abs(train[t] - train[t - 24]) for t in range(24, len(train))])
        for h, y in enumerate(test[-HORIZON:]):
            z = quantiles[i, h]
            loss += sum(2 * (q * (y - z[k]) if y > z[k] else (1 - q) * (z[k] - y)) for k, q in enumerate(LEVELS)) / 9
            scaled += abs(y - z[4]) / season
            weight += abs(y)
    assert found["crps"] == pytest.approx(loss / weight, rel=1e-5)
    assert found["mase"] == pytest.approx(scaled / (12 * HORIZON), rel=1e-5)


def test_a_data_set_is_found_by_name_by_its_own_folder_and_in_gluonts_home(folder, tmp_path, monkeypatch):
    by_name, by_itself = made(folder), made(folder / "power_hourly")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gluonts").mkdir()
    (tmp_path / ".gluonts" / "datasets").symlink_to(folder)
    at_home = made(None)
    assert by_name.fingerprint == by_itself.fingerprint == at_home.fingerprint
    assert at_home.info().extra == {"series": 12, "frequency": "h", "season": 24, "horizon": 24}


def test_gluonts_home_is_where_gluonts_looks():
    from gluonts.dataset.repository import get_download_path

    assert gluonts_repository.home() == get_download_path() / "datasets"


def test_missing_data_and_wrong_names_are_refused_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    absent = GluontsSeries(RepositoryOptions(dataset="m4_hourly"))
    assert absent.spec.horizon == 24
    assert "suite data prepare gluonts --set dataset=m4_hourly" in absent.info().notes[0]
    for action, message in (
        (absent.load, r"datasets holds no m4_hourly/metadata.json; suite data prepare gluonts --set dataset=m4_hourly"),
        (lambda: made(folder, "m4_hourly"), r"holds no m4_hourly/metadata.json"),
        (lambda: made(folder, horizon=12), "published with a horizon of 24, not 12"),
        (
            GluontsSeries(RepositoryOptions(dataset="m4_horly")).prepare,
            "GluonTS has no data set 'm4_horly'; did you mean 'm4_hourly'",
        ),
    ):
        with pytest.raises(DataError, match=message) as caught:
            action()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [True, False])
def test_a_failed_recipe_leaves_no_files_and_a_successful_one_runs_once(given, tmp_path, monkeypatch):
    from gluonts.dataset.repository import datasets as recipes

    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / "mine" if given else None
    task = GluontsSeries(RepositoryOptions(dataset="m4_hourly"), place)

    def broken(name, path):
        (path / name).mkdir()
        raise ConnectionError("no route to host")

    monkeypatch.setattr(recipes, "materialize_dataset", broken)
    with pytest.raises(DataError, match=r"m4_hourly could not be .*: no route to host; or pass --data-dir"):
        task.prepare()
    root = place or tmp_path / ".gluonts" / "datasets"
    assert {path.name for path in root.iterdir()} <= {".m4_hourly.lock"}
    calls = []

    def works(name, path):
        calls.append(name)
        return write_gluonts(path, name)

    monkeypatch.setattr(recipes, "materialize_dataset", works)
    task.prepare()
    GluontsSeries(task.options, place).prepare()
    assert calls == ["m4_hourly"]
    assert task.n_examples("test") == 12


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "train",
            lambda found: found[2]["target"].__setitem__(5, None),
            "train series 3: a value is missing or not finite",
        ),
        ("test", lambda found: found[2]["target"].__setitem__(5, 1e9), "test series 3 continues no training series"),
        ("test", lambda found: found[1].update(target=found[1]["target"][:24]), "test series 2 has 24 steps"),
        (
            "test",
            lambda found: found[1].update(target=found[1]["target"][:-24]),
            "test series 2 ends less than a horizon after",
        ),
        ("train", lambda found: found.clear(), "is not a complete GluonTS data set"),
        (
            "train",
            lambda found: [e.update(target=e["target"][:24]) for e in found],
            "no training series is longer than the horizon of 24",
        ),
    ],
)
def test_damaged_data_sets_are_refused_with_the_series_at_fault(tmp_path, part, change, message):
    write_gluonts(tmp_path)
    rewrite(tmp_path / "power_hourly", part, change)
    with pytest.raises(DataError, match=message) as caught:
        made(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_and_unreadable_metadata_are_refused(tmp_path):
    there = write_gluonts(tmp_path)
    file = there / "test" / "data.json.gz"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match="is not a complete GluonTS data set"):
        made(tmp_path)
    (there / "metadata.json").write_text("{}")
    with pytest.raises(DataError, match="freq and prediction_length cannot be read"):
        made(tmp_path)


def test_a_constant_series_is_standardised_and_left_out_of_mase(tmp_path):
    write_gluonts(tmp_path)
    for part in ("train", "test"):
        rewrite(tmp_path / "power_hourly", part, lambda found: found[0].update(target=[3.5] * len(found[0]["target"])))
    task = made(tmp_path, head="quantile")
    [batch] = task.eval_batches("test", 12)
    assert batch.targets[0].abs().max() == 0
    assert task.measure(forecast(task, batch), batch)["mase"][1] == 11 * HORIZON


@pytest.mark.parametrize("frequency", ["7D", "2D", "30D", "500ms"])
def test_a_spacing_without_a_season_logs_nothing_and_other_log_lines_remain(frequency, caplog):
    assert gluonts_repository.season_of(frequency) == 1
    assert not caplog.records
    logging.getLogger("gluonts.time_feature.seasonality").warning("from another caller")
    assert [record.message for record in caplog.records] == ["from another caller"]
