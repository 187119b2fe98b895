"""Baselines: the same runner, data and boards as the mixers, and never a rank."""

from __future__ import annotations

import pytest
import torch

import tasks
from backbones.series_baselines import Ridge, SeasonalNaive
from suite import board
from suite.budget import certify, solve
from suite.errors import UserError
from suite.resolve import from_canonical, resolve
from suite.run import start
from tests.suite.tiny import tiny_sets


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    monkeypatch.setenv("SUITE_TRACKING", "off")


def tiny(mixer, *more):
    return resolve(task="household-power", mixer=mixer, scale="board", sets=[*tiny_sets("household-power", *more)])


def test_the_seasonal_naive_forecast_repeats_the_last_season():
    x_BNC = torch.randn(2, 10, 3)
    y_BHC = SeasonalNaive(10, 7, 4)(x_BNC)
    assert all(torch.equal(y_BHC[:, h], x_BNC[:, 6 + h % 4]) for h in range(7))


def test_the_ridge_minimises_the_penalised_squares():
    """The gradient of `‖Y − ZW‖² + α ‖W‖²` vanishes at the solution, by a plain loop over windows and channels."""
    generator = torch.Generator().manual_seed(0)
    windows = [(torch.randn(5, 6, 2, generator=generator), torch.randn(5, 3, 2, generator=generator)) for _ in range(4)]
    ridge = Ridge(6, 3, penalty=0.7)
    assert ridge.solve(windows) == 20
    gradient = 0.7 * ridge.weight.double()
    for x_BNC, y_BHC in windows:
        forecast_BHC = ridge(x_BNC)
        for b in range(5):
            for c in range(2):
                z_N = torch.cat([x_BNC[b, :, c] - x_BNC[b, -1, c], torch.ones(1)]).double()
                gradient = gradient - torch.outer(z_N, (y_BHC[b, :, c] - forecast_BHC[b, :, c]).double())
    assert gradient.abs().max() < 1e-4
    assert ridge.weight.abs().max() > 0.05


def test_a_baseline_leaves_a_record_on_the_mixers_board_without_a_place(runs):
    made = {
        name: start(tiny(name), data_dir=None, device="cpu").record for name in ("softmax", "baseline/ridge", "baseline/seasonal-naive")
    }
    assert {one.status for one in made.values()} == {"finished"}
    assert len({one.group for one in made.values()}) == 1
    [shown] = board.boards(made.values())
    assert {row.mixer: row.place for row in shown.rows} == {"softmax": 1, "baseline/ridge": None, "baseline/seasonal-naive": None}
    assert "| baseline | baseline/ridge |" in board.markdown(shown)
    ridge = made["baseline/ridge"]
    assert ridge.certificate["matched"] is False
    assert ridge.certificate["parameters"] == 337 * 8
    assert ridge.n_evaluated == {"valid": 16, "test": 16}
    assert ridge.code.mixer_origin == "baseline"
    config = from_canonical(ridge.config)
    assert config.identity == ridge.identity
    task = tasks.get("household-power")(config.data)
    task.load()
    model = Ridge(336, 8, 1.0)
    model.solve((b.inputs, b.targets) for b in task.eval_batches("train", 2000))
    [batch] = task.eval_batches("test", 16)
    assert ridge.metrics["test"]["mse"] == pytest.approx(task.summarise(task.measure(model(batch.inputs), batch))["mse"], rel=1e-4)


def test_a_baseline_is_counted_and_never_matched():
    config = tiny("baseline/ridge")
    spec = tasks.get("household-power")(config.data).spec
    assert certify(config, spec, solve(config, spec)).reasons[0].startswith("a baseline")


@pytest.mark.parametrize(
    ("task", "mixer", "options", "message"),
    [
        ("household-power", "baseline/rigde", {}, "did you mean 'baseline/ridge'"),
        ("sotu", "baseline/ridge", {}, "is for forecasting tasks"),
        ("household-power", "baseline/ridge", {"hybrid": "even"}, "no layers to keep softmax in"),
        ("household-power", "baseline/ridge", {"sets": ["penalty=-1"]}, "mixer.penalty"),
        ("household-power", "baseline/ridge", {"sets": ["season=3"]}, "unknown option 'season'"),
    ],
)
def test_a_baseline_that_cannot_be_is_refused_in_one_line(task, mixer, options, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve(task=task, mixer=mixer, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "message"), [("weather", "144 steps does not fit into a look-back of 96"), ("csv", "knows no season")])
def test_a_season_that_does_not_fit_is_refused(task, message):
    config = resolve(task=task, mixer="baseline/seasonal-naive", track="fixed-96")
    spec = tasks.get(task)(config.data).spec
    with pytest.raises(UserError, match=message):
        certify(config, spec, solve(config, spec))
