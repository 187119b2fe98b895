"""A forecasting task as GluonTS's `TestData`: the same windows, for GluonTS's models, evaluators and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.base import Split
from tasks.series.forecasting import ForecastTask
from tasks.series.gluonts_repository import period_of, quiet

if TYPE_CHECKING:
    from gluonts.dataset.split import TestData


def as_gluonts(task: ForecastTask, split: Split) -> TestData:
    """All windows of the validation or test split, in order, as multivariate instances `[C, look-back]` with labels
    `[C, horizon]`.

    Values are standardised as in the task. The limits `valid_limit` and `test_limit` do not apply.
    """
    import pandas as pd
    from gluonts.dataset.split import split as cut

    task.load()
    begin, end = {"valid": task.borders[:2], "test": task.borders[1:]}[split]
    with quiet():
        start = pd.Period(task.first_time, freq=period_of(task.frequency))
    entry = {"start": start, "target": task.series[:end].numpy().T, "item_id": task.name}
    _, template = cut([entry], offset=begin)
    horizon = task.options.horizon
    return template.generate_instances(
        prediction_length=horizon, windows=end - begin - horizon + 1, distance=1, max_history=task.options.look_back
    )
