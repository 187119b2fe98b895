"""Real series, parts of the embedded household-power data, in the layouts of the field's archives and of the hub.

`python -m tests.tasks.series.series_files FOLDER` writes samples.
"""

from __future__ import annotations

import gzip
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import embedded

ETT_COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")


@cache
def _hours() -> NDArray[np.float64]:
    return embedded.read_arrays("household-power")["values"].astype(np.float64)


def power(rows: int) -> NDArray[np.float64]:
    """The first hours of household-power, `[rows, 7]`, a copy."""
    return _hours()[:rows].copy()


def write_csv(path: Path, values: NDArray[np.float64], columns: tuple[str, ...], start: str, freq: str) -> Path:
    """Informer's and Autoformer's format: a column `date`, then one column per series, the target last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dates = pd.date_range(start, periods=len(values), freq=freq).strftime("%Y-%m-%d %H:%M:%S")
    table = pd.DataFrame(values, columns=list(columns))
    table.insert(0, "date", dates)
    table.to_csv(path, index=False)
    return path


def write_ett(folder: Path, values: NDArray[np.float64] | None = None) -> Path:
    """`folder/ETT-small/ETTh1.csv`, of the published size unless values are given."""
    return write_csv(
        folder / "ETT-small" / "ETTh1.csv", power(17_420) if values is None else values, ETT_COLUMNS, "2016-07-01", "h"
    )


def write_exchange(folder: Path) -> Path:
    """`folder/exchange_rate/exchange_rate.csv`: daily, eight series."""
    values = np.hstack([power(7_588), power(7_588)[:, :1]])
    return write_csv(folder / "exchange_rate" / "exchange_rate.csv", values, (*"0123456", "OT"), "1990-01-01", "D")


def write_solar(folder: Path, rows: int, columns: int) -> Path:
    """`folder/solar_AL.txt.gz`, in LSTNet's format: neither header nor times."""
    values = np.tile(power(rows), (1, -(-columns // 7)))[:, :columns]
    path = folder / "solar_AL.txt.gz"
    path.write_bytes(
        gzip.compress("\n".join(",".join(f"{v:g}" for v in row) for row in values.tolist()).encode(), mtime=0)
    )
    return path


def write_gluonts(folder: Path, name: str = "power_hourly", horizon: int = 24, rolling: int = 1) -> Path:
    """`folder/name`, as GluonTS writes a data set: twelve series of 150 to 590 hours, `rolling` test windows each."""
    target = folder / name
    train, test = [], []
    for i in range(12):
        values = power(20_000)[1_500 * i : 1_500 * i + 150 + 40 * i + rolling * horizon, i % 7].astype(np.float32)
        start = {"start": f"2007-01-{i + 1:02d} 0{i % 10}:00:00", "item_id": str(100 + i), "feat_static_cat": [i]}
        train.append({"target": values[: -rolling * horizon].tolist(), **start})
        test += [
            (step, {"target": values[: len(values) - (rolling - 1 - step) * horizon].tolist(), **start})
            for step in range(rolling)
        ]
    test.sort(key=lambda pair: pair[0])  # all series of a window, then all of the next one
    for part, entries in (("train", train), ("test", [entry for _, entry in test])):
        (target / part).mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (target / part / "data.json.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    about = {
        "freq": "h",
        "prediction_length": horizon,
        "feat_static_cat": [{"name": "feat_static_cat_0", "cardinality": "12"}],
    }
    (target / "metadata.json").write_text(json.dumps(about))
    return target


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_ett(target), write_exchange(target), write_solar(target, 400, 137), write_gluonts(target)
