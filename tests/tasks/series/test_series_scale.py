"""Series without a scale: constant ones are named and refused, values beyond single precision too."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.base import DataError
from tests.tasks.series.test_csv_cells_and_layouts import ROWS, refusal, table, task

TRAINED = 182


@pytest.mark.parametrize(
    "column",
    [
        np.zeros(ROWS),
        np.full(ROWS, 0.1),
        np.where(np.arange(ROWS) < TRAINED, 0.0, 1000.0),
        np.where(np.arange(ROWS) % 2, 0.1, 0.1 + 2e-17) + np.where(np.arange(ROWS) < TRAINED, 0, 5),
    ],
)
def test_a_series_that_is_constant_in_training_is_named_before_training(tmp_path, column):
    frame = table(c=[repr(float(v)) for v in column])
    message = refusal(tmp_path, frame)
    assert "constant in the training part (the first 182 rows): 'c'" in message
    assert "--set columns=a,b reads only the others" in message
    assert task(tmp_path, frame, columns="a,b").fingerprint == task(tmp_path, table()).fingerprint
    kept = task(tmp_path, frame, constant="keep")
    assert kept.std[2] == 1 or kept.std[2] < 1e-15


@pytest.mark.parametrize(
    "column",
    [
        5.0 + 1e-9 * (np.arange(ROWS) == 7) + np.where(np.arange(ROWS) < TRAINED, 0, 7 * np.arange(ROWS)),
        1e-6 * (np.arange(ROWS) % 3) + np.where(np.arange(ROWS) < TRAINED, 0, 1),
    ],
)
def test_a_series_that_is_nearly_constant_in_training_is_named_before_training(tmp_path, column):
    frame = table(c=[repr(float(v)) for v in column])
    message = refusal(tmp_path, frame)
    assert "nearly constant, against its later values, in the training part (the first 182 rows): 'c'" in message
    assert "--set columns=a,b reads only the others" in message
    assert task(tmp_path, frame, constant="keep").channels == 3


def test_a_series_that_changes_once_in_training_is_read(tmp_path):
    assert task(tmp_path, table(c=[str(int(row == TRAINED - 1)) for row in range(ROWS)])).channels == 3


def test_constant_series_that_are_kept_are_named_in_the_info(tmp_path):
    kept = task(tmp_path, table(c=["0"] * ROWS), constant="keep")
    assert any(note.startswith("constant in the training part") and note.endswith(": c") for note in kept.info().notes)


@pytest.mark.parametrize("row", [5, 200])
@pytest.mark.parametrize("value", ["1e200", "-1e200", "1e300", "1.7e308"])
def test_a_value_beyond_the_scale_is_refused_not_turned_into_zero(tmp_path, row, value):
    cells = ["0.5" if i % 2 else "1.5" for i in range(ROWS)]
    cells[row] = value
    with pytest.raises(
        DataError, match=r"1 of 3 series cannot be standardised in single precision; .*'c', whose values"
    ):
        task(tmp_path, table(c=cells))
