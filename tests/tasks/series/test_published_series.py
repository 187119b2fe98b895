"""The standard forecasting data sets: published splits and counts, every window, a scaler fitted on the training part,
and files as users have them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import tasks
from tasks.base import DataError
from tasks.series.csv_table import SeriesTable
from tasks.series.options import SEARCHED, SearchedOptions
from tasks.series.published import Etth1, Ettm1, Exchange, PublishedSeries, Solar, Weather
from tests.tasks.series.series_files import ETT_COLUMNS, power, write_csv, write_ett, write_exchange, write_solar

PUBLISHED = ("etth1", "etth2", "ettm1", "ettm2", "weather", "electricity", "traffic", "exchange", "solar")


class Counted(PublishedSeries):
    """A published task over artificial values of its published size: row t of every series holds t."""

    def _read(self):
        t = np.arange(self.rows, dtype=np.float64)
        return SeriesTable(
            np.repeat(t[:, None], self.channels, 1), tuple(map(str, range(self.channels))), ("2016-07-01T00:00:00",)
        )

    def _check(self, table):
        pass


def counted(name, **options):
    cls = tasks.get(name)
    made = type("Made", (Counted, cls), {})(SearchedOptions(**options))
    made.load()
    return made


def rows_of(task, windows):
    return (windows[..., 0].double() * task.std[0] + task.mean[0]).round().long()


@pytest.fixture(scope="module")
def ett_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    write_ett(folder)
    return folder


@pytest.fixture
def any_values(monkeypatch):
    """Accepts files of the published sizes and names with other values."""
    monkeypatch.setattr(Etth1, "known", "")


@pytest.mark.parametrize("horizon", [96, 192, 336, 720])
@pytest.mark.parametrize("track", ["fixed-96", "fixed-336"])
@pytest.mark.parametrize(("name", "month"), [("etth1", 720), ("etth2", 720), ("ettm1", 2880), ("ettm2", 2880)])
def test_ett_has_12_4_and_4_months_and_every_window_of_them(name, month, track, horizon):
    task = counted(name, track=track, horizon=horizon)
    look_back = {"fixed-96": 96, "fixed-336": 336}[track]
    expected = {
        "train": 12 * month - look_back - horizon + 1,
        "valid": 4 * month - horizon + 1,
        "test": 4 * month - horizon + 1,
    }
    assert {split: len(view) for split, view in task._windows.items()} == expected
    assert task.n_examples("test") == expected["test"]
    if month > 720:
        return  # the same code over four times the steps
    seen = torch.cat([rows_of(task, batch.targets)[:, [0, -1]] for batch in task.eval_batches("test", 1000)])
    assert seen[:, 0].tolist() == list(range(16 * month, 20 * month - horizon + 1))
    assert seen[:, 1].tolist() == list(range(16 * month + horizon - 1, 20 * month))


def test_etth1_has_the_published_number_of_test_windows():
    assert counted("etth1", track="fixed-96", horizon=96).n_examples("test") == 2_785
    assert counted("etth1", track="fixed-96", horizon=720).n_examples("test") == 2_161


@pytest.mark.parametrize(
    ("name", "train", "valid", "test"),
    [
        ("weather", 36_887, 5_270, 10_539),
        ("electricity", 18_412, 2_632, 5_260),
        ("exchange", 5_311, 760, 1_517),
        ("traffic", 12_280, 1_756, 3_508),
        ("solar", 36_792, 5_256, 10_512),
    ],
)
def test_the_others_are_split_70_10_20(name, train, valid, test):
    cls = tasks.get(name)
    assert issubclass(cls, PublishedSeries)
    ends = cls()._ends(cls.rows)
    assert (ends[0], ends[1] - ends[0], ends[2] - ends[1]) == (train, valid, test)


def test_published_series_are_read_from_an_archive_folder_or_the_file_or_its_folder(ett_folder, any_values):
    file = ett_folder / "ETT-small" / "ETTh1.csv"
    loaded = [Etth1(None, place) for place in (ett_folder, file.parent, file)]
    assert len({task.fingerprint for task in loaded}) == 1
    assert loaded[0].series.shape == (17_420, 7)
    assert loaded[0].columns == ETT_COLUMNS
    info = loaded[0].info()
    assert dict(info.splits) == {"train": 8_640, "valid": 2_880, "test": 2_880}
    assert info.extra["windows"] == {"train": 8_209, "valid": 2_785, "test": 2_785}
    train = power(8_640)
    assert np.allclose(loaded[0].series[:8_640].numpy(), (train - train.mean(0)) / train.std(0), atol=1e-5)


def test_values_after_the_training_part_change_neither_scaler_nor_training(tmp_path, ett_folder, any_values):
    values = power(17_420)
    values[8_640:] = -50 * values[8_640:] + 7
    write_ett(tmp_path, values)
    plain, disturbed = Etth1(None, ett_folder), Etth1(None, tmp_path)
    plain.load()
    disturbed.load()
    assert plain.mean.tolist() == disturbed.mean.tolist()
    assert plain.std.tolist() == disturbed.std.tolist()
    for a, b, _ in zip(plain.train_batches(0, 256), disturbed.train_batches(0, 256), range(3), strict=False):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
    assert plain.fingerprint != disturbed.fingerprint


def test_windows_are_views_of_one_array(ett_folder, any_values):
    task = Etth1(None, ett_folder)
    task.load()
    assert {view.untyped_storage().data_ptr() for view in task._windows.values()} == {
        task.series.untyped_storage().data_ptr()
    }
    assert task.series.dtype == torch.float32


def test_a_column_that_is_constant_in_training_gives_finite_values(tmp_path, any_values):
    values = power(17_420)
    values[:8_640, 2] = 4.5
    write_ett(tmp_path, values)
    task = Etth1(None, tmp_path)
    task.load()
    assert torch.isfinite(task.series).all()
    assert task.series[:8_640, 2].abs().max() == 0


def test_a_trial_of_the_searched_track_reads_more_and_forecasts_the_same_steps():
    """So that validation may choose among them, and their test metrics are comparable."""
    fixed = counted("etth1")
    for look_back in SEARCHED:
        task = counted("etth1", track="searched", look_back=look_back)
        assert task.spec.look_back == look_back
        for split in ("valid", "test"):
            a, b = next(task.eval_batches(split, 40)), next(fixed.eval_batches(split, 40))
            assert torch.equal(a.targets, b.targets)
            assert task.n_examples(split) == fixed.n_examples(split)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track": "searched"}, "look-back of 96, 192, 336, 512, 720, not 0; .*--set look_back"),
        ({"track": "searched", "look_back": 100}, "not 100"),
        ({"track": "fixed-96", "look_back": 336}, "other look-backs are trials of --track searched"),
        ({"track": "fixed-96", "patch": 97}, "longer than the look-back of 96"),
    ],
)
def test_look_backs_off_the_track_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValidationError, match=message):
        SearchedOptions(**options)


def test_the_fixed_tracks_set_their_look_back():
    assert SearchedOptions().look_back == 336
    assert SearchedOptions(track="fixed-96").look_back == 96
    assert SearchedOptions.model_validate(SearchedOptions(track="fixed-96").model_dump()).look_back == 96


def test_a_file_of_another_size_or_with_other_values_is_refused(tmp_path, ett_folder):
    with pytest.raises(DataError, match="published size but other values"):
        Etth1(None, ett_folder).load()
    write_ett(tmp_path, power(17_419))
    with pytest.raises(DataError, match=r"17,419 rows of 7 series, the published one 17,420 of 7; .*--task csv"):
        Etth1(None, tmp_path).load()


def test_a_folder_without_the_file_is_refused_with_its_name_and_source(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no exchange_rate/exchange_rate.csv or exchange_rate.csv; exchange comes from .*LSTNet"
    ):
        Exchange(None, tmp_path).load()
    with pytest.raises(DataError, match=r"solar needs its file: Solar/solar_AL.txt .*--data-dir DIR"):
        Solar().load()


def test_the_info_describes_the_required_file_without_data():
    for name in PUBLISHED:
        info = tasks.get(name)().info()
        assert info.fingerprint == ""
        assert "--data-dir DIR" in info.notes[0]
        assert ("suite data prepare" in info.notes[0]) == (name != "solar")


def test_solar_is_read_from_lstnets_compressed_text(tmp_path, monkeypatch):
    write_solar(tmp_path, 1_000, 137)
    monkeypatch.setattr(Solar, "rows", 1_000)
    task = Solar(None, tmp_path)
    task.load()
    assert task.borders == (700, 800, 1_000)
    assert task.series.shape == (1_000, 137)
    first = power(700)
    assert np.allclose(task.mean[:7], first.mean(0), rtol=1e-5)
    assert np.allclose(task.mean[133:], first.mean(0)[:4], rtol=1e-5)


def test_a_gap_in_the_times_of_a_published_file_is_counted_and_no_row_is_added(tmp_path, monkeypatch):
    path = write_csv(
        tmp_path / "weather.csv", np.tile(power(3_000), (1, 3)), tuple("abcdefghijklmnopqrstu"), "2020-01-01", "10min"
    )
    lines = path.read_text().splitlines()
    del lines[1_000]
    path.write_text("\n".join(lines))
    monkeypatch.setattr(Weather, "rows", 2_999)
    task = Weather(None, tmp_path)
    assert task.info().extra["uneven_steps"] == 1
    assert len(task.series) == 2_999


def test_too_few_steps_for_a_window_are_refused_in_one_line(tmp_path, monkeypatch):
    write_solar(tmp_path, 400, 137)
    monkeypatch.setattr(Solar, "rows", 400)
    with pytest.raises(DataError, match=r"400 steps, 280 of them for training, are too few .* 432 steps"):
        Solar(None, tmp_path).load()


def test_minutes_are_four_times_the_hours():
    assert Ettm1()._ends(69_680) == tuple(4 * end for end in Etth1()._ends(17_420))


def test_gluonts_cuts_the_same_windows_of_a_published_set(tmp_path):
    from tasks.series.gluonts_view import as_gluonts

    write_exchange(tmp_path)
    task = Exchange(SearchedOptions(horizon=96, track="fixed-96"), tmp_path)
    n = 0
    batches = task.eval_batches("test", 1)
    for (instance, label), batch in zip(as_gluonts(task, "test"), batches, strict=True):
        assert np.array_equal(instance["target"].T, batch.inputs[0])
        assert np.array_equal(label["target"].T, batch.targets[0])
        n += 1
    assert n == task.n_examples("test") == 1_517 - 95
