"""Forecasts of a run saved on request: in original units, equal to what the record's metrics are computed from."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest

from suite.training.run import start
from tasks.series.forecasting import HouseholdPower
from tests.suite.tiny import tiny_config
from tests.tasks.series.series_files import power, write_gluonts


def written(suite, runs, config, data_dir=None):
    made = start(config, data_dir=data_dir, device="cpu").record
    answer = json.loads(suite("forecasts", made.id, "--device", "cpu", "--json").out)
    assert answer["run"] == made.id
    arrays = dict(np.load(runs / made.id / "forecasts.npz"))
    with (runs / made.id / "forecast_errors.csv").open(encoding="utf-8") as file:
        errors = {(row["series"], row["step"]): row for row in csv.DictReader(file)}
    return made, arrays, errors


@pytest.mark.parametrize("head", ["point", "quantile"])
@pytest.mark.slow
def test_saved_forecasts_agree_with_the_metrics_and_the_original_values(suite, runs, head):
    config = tiny_config("household-power", "softmax", f"head={head}")
    made, arrays, errors = written(suite, runs, config)
    task = HouseholdPower(config.data)
    task.load()
    assert arrays["forecast"].shape == arrays["observed"].shape == (16, 8, 7)
    first = task.borders[1] + int(task._scored["test"][3])
    assert np.allclose(arrays["observed"][3], power(first + 8)[first:], rtol=1e-5, atol=1e-5)
    error = arrays["forecast"] - arrays["observed"]
    assert np.square(error / task.std).mean() == pytest.approx(made.metrics["test"]["mse"], rel=1e-5)
    assert len(errors) == (7 + 1) * (8 + 1)
    for c, name in enumerate(arrays["names"]):
        for step in range(8):
            row = errors[name, str(step + 1)]
            assert float(row["mse"]) == pytest.approx(np.square(error[:, step, c]).mean())
            assert float(row["mae"]) == pytest.approx(np.abs(error[:, step, c]).mean())
            assert float(row["bias"]) == pytest.approx(error[:, step, c].mean())
    assert float(errors["all", "all"]["mae"]) == pytest.approx(np.abs(error).mean())
    assert int(errors["all", "1"]["count"]) == 16 * 7
    if head == "quantile":
        assert np.array_equal(arrays["quantiles"][..., 4], arrays["forecast"])
    assert ("quantiles" in arrays) == (head == "quantile")


@pytest.mark.filterwarnings("ignore:Using `json`-module for json-handling:UserWarning")
def test_saved_forecasts_of_many_series_are_in_the_units_of_each(suite, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    folder = write_gluonts(tmp_path)
    config = tiny_config("gluonts", "softmax", "dataset=power_hourly")
    _, arrays, errors = written(suite, runs, config, data_dir=tmp_path)
    lines = gzip.decompress((folder / "test" / "data.json.gz").read_bytes()).decode().splitlines()
    targets = [json.loads(line)["target"] for line in lines]
    for window, (series, observed) in enumerate(zip(arrays["series"], arrays["observed"], strict=True)):
        assert np.allclose(observed[:, 0], targets[window][-24:], rtol=1e-4, atol=1e-3)
        assert series == [window]
    assert len(errors) == (12 + 1) * (24 + 1)


def test_a_run_of_another_domain_is_refused(suite, monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")
    run = start(tiny_config("fashion-mnist", "softmax", "steps=1", "evals=1"), data_dir=None, device="cpu").record.id
    ended = suite("forecasts", run)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "choose a run of a forecasting task" in ended.err
