"""household-power: chronological splits, a scaler fitted on the training part only, and every window counted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.base import Batch, Split
from tasks.series.forecasting import ForecastTask, HouseholdPower, chronological
from tasks.series.options import ForecastOptions


class Counting(HouseholdPower):
    """The task over artificial values: row t of every channel holds t, so that a window shows its position."""

    N = 2000

    def _read(self):
        self.first_time, self.columns = "2000-01-01 00:00:00", list("abcdefg")
        self._split_and_scale(self.values(), chronological(self.N))

    def values(self):
        return np.repeat(np.arange(self.N, dtype=np.float64)[:, None], 7, axis=1)

    def times(self, series):
        return (series[..., 0].double() * self.std[0] + self.mean[0]).round().long()


@pytest.fixture
def power(embedded_tasks):
    return embedded_tasks["household-power"]


def all_batches(task, split, batch_size=64):
    batches = list(task.eval_batches(split, batch_size))
    return Batch(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))


def test_the_series_has_34587_hours_of_7_quantities_split_70_10_20(power):
    info = power.info()
    assert power.series.shape == (34_587, 7)
    assert dict(info.splits) == {"train": 24_210, "valid": 3_460, "test": 6_917}
    assert info.extra["windows"] == {"train": 24_210 - 431, "valid": 3_460 - 95, "test": 6_917 - 95}
    assert info.extra["first_hour"] == "2006-12-16 18:00:00"


@pytest.mark.parametrize(("horizon", "track"), [(1, "fixed-96"), (96, "fixed-336"), (50, "fixed-96")])
def test_every_forecast_of_a_split_is_a_window_once_and_none_leaves_its_split(horizon, track):
    task = Counting(ForecastOptions(horizon=horizon, track=track, valid_limit=0))
    task.load()
    train_end, valid_end, end = task.borders
    parts: tuple[tuple[Split, int, int], ...] = (("valid", train_end, valid_end), ("test", valid_end, end))
    for split, first, last in parts:
        batch = all_batches(task, split)
        inputs, targets = task.times(batch.inputs), task.times(batch.targets)
        assert targets[:, 0].tolist() == list(range(first, last - horizon + 1))
        assert torch.equal(targets, targets[:, :1] + torch.arange(horizon))
        assert torch.equal(inputs, targets[:, :1] + torch.arange(-task.options.look_back, 0))
        assert task.n_examples(split) == len(targets)


def test_an_epoch_of_training_is_every_window_of_the_training_part_once():
    task = Counting(ForecastOptions(horizon=96))
    task.load()
    n = task.borders[0] - 336 - 96 + 1
    batches = task.train_batches(0, n)
    for batch in (next(batches), next(batches)):
        starts = task.times(batch.inputs)[:, 0]
        assert sorted(starts.tolist()) == list(range(n))
        assert starts.tolist() != sorted(starts.tolist())
        assert int(task.times(batch.targets).max()) == task.borders[0] - 1


def test_the_scaler_never_sees_validation_or_test():
    class Disturbed(Counting):
        def values(self):
            values = super().values()
            values[chronological(self.N)[0] :] *= -1e6
            return values

    plain, disturbed = Counting(), Disturbed()
    plain.load()
    disturbed.load()
    train_end = plain.borders[0]
    assert plain.mean.tolist() == disturbed.mean.tolist() == [np.arange(train_end).mean()] * 7
    assert plain.std.tolist() == disturbed.std.tolist() == [np.arange(train_end).std()] * 7
    assert torch.equal(next(plain.train_batches(0, 8)).inputs, next(disturbed.train_batches(0, 8)).inputs)


def test_windows_are_views_of_one_array(power):
    pointers = {view.untyped_storage().data_ptr() for view in power._windows.values()}
    assert pointers == {power.series.untyped_storage().data_ptr()}


def test_limited_validation_is_evenly_spread_and_the_default_test_is_complete(power):
    some = HouseholdPower(ForecastOptions(valid_limit=50))
    all_of_it = HouseholdPower(ForecastOptions(valid_limit=0))
    windows, complete = all_batches(some, "valid").targets, all_batches(all_of_it, "valid").targets
    assert len(windows) == 50
    places = torch.tensor([int((complete == window).flatten(1).all(1).nonzero()[0]) for window in windows])
    assert set(places.diff().tolist()) <= {67, 68}
    assert power.n_examples("test") == 6_822
    assert power.n_examples("valid") == 512


def test_mse_and_mae_equal_a_sum_over_all_elements():
    task = HouseholdPower(ForecastOptions(horizon=3, test_limit=11))
    batch = all_batches(task, "test")
    outputs = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    found = task.summarise(task.measure(outputs, batch))
    errors = [a - b for a, b in zip(outputs.flatten().tolist(), batch.targets.flatten().tolist(), strict=True)]
    assert found["mse"] == pytest.approx(sum(e * e for e in errors) / len(errors), rel=1e-12)
    assert found["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), rel=1e-12)
    assert found["loss"] == found["mse"]
    assert task.loss(outputs, batch).item() == pytest.approx(found["mse"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "greater than or equal to 1"),
        ({"horizon": 721}, "less than or equal to 720"),
        ({"track": "fixed-512"}, "fixed-336"),
        ({"track": "fixed-96", "patch": 97}, "longer than the look-back of 96"),
    ],
)
def test_options_out_of_range_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValidationError, match=message):
        ForecastOptions(**options)


@pytest.mark.parametrize("horizon", [96, 192, 336, 720])
def test_the_standard_horizons_have_windows_in_every_split_on_both_tracks(horizon):
    for track, look_back in (("fixed-96", 96), ("fixed-336", 336)):
        task = HouseholdPower(ForecastOptions(horizon=horizon, track=track))
        assert (task.spec.look_back, task.spec.horizon, task.spec.patch, task.spec.stride) == (
            look_back,
            horizon,
            16,
            8,
        )
        assert task.n_examples("test") == 6_917 - horizon + 1
        assert next(task.eval_batches("test", 2)).inputs.shape == (2, look_back, 7)


def test_gluonts_cuts_the_same_windows():
    from tasks.series.gluonts_view import as_gluonts

    task = HouseholdPower(ForecastOptions(horizon=720, valid_limit=0))
    for split in ("valid", "test"):
        ours = all_batches(task, split, 1024)
        n = 0
        for (instance, label), inputs, targets in zip(as_gluonts(task, split), ours.inputs, ours.targets, strict=True):
            assert np.array_equal(instance["target"].T, inputs)
            assert np.array_equal(label["target"].T, targets)
            n += 1
        assert n == task.n_examples(split)


def never_right(task):
    """A batch of all validation windows, and a poor forecast of them: the look-back again."""
    batch = all_batches(task, "valid")
    return batch, batch.inputs + 0.1


def test_mse_and_mae_equal_numpy_and_gluonts_streaming_evaluators():
    from gluonts.ev.metrics import MAE, MSE

    task = HouseholdPower(ForecastOptions(horizon=336, valid_limit=0))
    batch, outputs = never_right(task)
    found = task.summarise(task.measure(outputs, batch))
    predicted, label = outputs.double().numpy(), batch.targets.double().numpy()
    assert found["mse"] == pytest.approx(np.mean((predicted - label) ** 2), rel=1e-12)
    assert found["mae"] == pytest.approx(np.mean(np.abs(predicted - label)), rel=1e-12)
    for metric, name in ((MSE(forecast_type="mean"), "mse"), (MAE(forecast_type="mean"), "mae")):
        evaluator = metric(axis=None)
        for at in range(0, len(label), 500):
            part = np.ma.masked_invalid(label[at : at + 500])
            evaluator.update({"label": part, "mean": predicted[at : at + 500]})
        assert found[name] == pytest.approx(float(evaluator.get()), rel=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using `json`-module for json-handling:UserWarning")
def test_mse_and_mae_equal_gluonts_evaluate_forecasts():
    import pandas as pd
    from gluonts.ev.metrics import MAE, MSE
    from gluonts.model import evaluate_forecasts
    from gluonts.model.forecast import SampleForecast

    from tasks.series.gluonts_view import as_gluonts

    task = HouseholdPower(ForecastOptions(horizon=336, valid_limit=0))
    batch, outputs = never_right(task)
    start = pd.Period(task.first_time, freq="h") + task.borders[0]
    forecasts = [SampleForecast(samples=o[None].numpy(), start_date=start + i) for i, o in enumerate(outputs)]
    table = evaluate_forecasts(forecasts, test_data=as_gluonts(task, "valid"), metrics=[MSE(), MAE()], axis=None)
    found = task.summarise(task.measure(outputs, batch))
    assert found["mse"] == pytest.approx(table["MSE[mean]"].item(), rel=1e-5)  # GluonTS computes in float32
    assert found["mae"] == pytest.approx(table["MAE[0.5]"].item(), rel=1e-5)


@pytest.mark.slow
def test_a_ridge_reaches_the_known_error_at_horizon_96():
    """A ridge shared by the channels, on windows minus their last value: .600 with this protocol (repeating the last
    value gives 1.3).
    """
    task = HouseholdPower(ForecastOptions(horizon=96))
    task.load()

    def regressors(batch):
        last = batch.inputs[:, -1:]
        x = (batch.inputs - last).transpose(1, 2).flatten(0, 1)
        return torch.cat([x, torch.ones(len(x), 1)], dim=1), (batch.targets - last).transpose(1, 2).flatten(0, 1), last

    gram, cross = torch.eye(337, dtype=torch.float64), torch.zeros(337, 96, dtype=torch.float64)
    for batch in task.eval_batches("train", 512):
        x, y, _ = regressors(batch)
        gram += (x.T @ x).double()
        cross += (x.T @ y).double()
    weights = torch.linalg.solve(gram, cross).float()
    total = count = repeated = 0.0
    for batch in task.eval_batches("test", 512):
        x, _, last = regressors(batch)
        sums = task.measure((x @ weights).unflatten(0, (-1, 7)).transpose(1, 2) + last, batch)["mse"]
        total, count = total + sums[0], count + sums[1]
        repeated += task.measure(last.expand_as(batch.targets), batch)["mse"][0]
    assert total / count == pytest.approx(0.600, abs=0.003)
    assert repeated / count > 1.2


def test_forecast_task_is_the_common_base():
    assert issubclass(HouseholdPower, ForecastTask)
    assert [metric.name for metric in HouseholdPower().metrics] == ["mse", "mae", "loss"]
