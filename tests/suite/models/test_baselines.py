"""Baselines: the same runner, data and boards as the mixers, without a rank."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

import tasks
from backbones.baselines.base import BaselineError
from backbones.baselines.series import Ridge, SeasonalNaive
from suite.boards import board
from suite.boards.markdown import markdown
from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.candidate import parse
from suite.models.resolve import resolve
from suite.training.run import start
from tasks.base import SeriesInput
from tests.suite.tiny import certify, tiny_sets


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
    """The gradient of `‖Y − ZW‖² + α ‖W‖²` is zero at the solution, by a plain loop over windows and channels."""
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


@pytest.mark.slow
def test_a_baseline_is_on_the_mixers_board_without_a_place(runs):
    made = {
        name: start(tiny(name), data_dir=None, device="cpu").record
        for name in ("softmax", "baseline/ridge", "baseline/seasonal-naive")
    }
    assert {one.status for one in made.values()} == {"finished"}
    assert len({one.group for one in made.values()}) == 1
    [shown] = board.boards(made.values())
    assert {row.mixer: row.place for row in shown.rows} == {
        "softmax": 1,
        "baseline/ridge": None,
        "baseline/seasonal-naive": None,
    }
    assert "| baseline | baseline/ridge |" in markdown(shown)
    ridge = made["baseline/ridge"]
    assert ridge.certificate.matched is False
    assert ridge.certificate.parameters == 337 * 8
    assert ridge.n_evaluated == {"valid": 16, "test": 16}
    assert ridge.code.mixer_origin == "baseline"
    config = ridge.config
    assert config.identity == ridge.identity
    task = tasks.get("household-power")(config.data)
    task.load()
    model = Ridge(336, 8, 1.0)
    model.solve((b.inputs, b.targets) for b in task.eval_batches("train", 2000))
    [batch] = task.eval_batches("test", 16)
    assert ridge.metrics["test"]["mse"] == pytest.approx(
        task.summarise(task.measure(model(batch.inputs), batch))["mse"], rel=1e-4
    )


def test_a_baseline_is_counted_and_never_matched():
    config = tiny("baseline/ridge")
    assert certify(config).reasons[0].startswith("a baseline")


@pytest.mark.parametrize(
    ("task", "mixer", "options", "message"),
    [
        ("household-power", "baseline/rigde", {}, "did you mean 'baseline/ridge'"),
        ("sotu", "baseline/ridge", {}, "is for forecasting tasks"),
        ("household-power", "baseline/ridge", {"hybrid": "even"}, "drop --hybrid"),
        ("household-power", "baseline/ridge", {"sets": ["penalty=-1"]}, "mixer.penalty"),
        ("household-power", "baseline/ridge", {"sets": ["season=3"]}, "unknown option 'season'"),
        ("household-power", "baseline/dlinear", {"sets": ["kernel=24"]}, "take 25"),
    ],
)
def test_an_impossible_baseline_is_refused_in_one_line(task, mixer, options, message):
    with pytest.raises((UserError, BaselineError), match=message) as caught:
        resolve(task=task, mixer=mixer, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["point", "student-t", "quantile"])
@pytest.mark.parametrize("name", ["dlinear", "patchtst"])
@torch.no_grad()
def test_gluonts_models_return_what_gluonts_computes(name, head):
    """The same network, called as GluonTS does, one series at a time."""
    config = tiny(f"baseline/{name}", f"head={head}")
    spec = tasks.get("household-power")(config.data).spec
    assert isinstance(spec, SeriesInput)
    model: Any = _model(config).double().eval()
    x_BNC = 3 * torch.randn(2, 336, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 5
    found = model(x_BNC)
    assert found.shape == ((2, 8, 7) if head == "point" else (2, 8, 7, spec.outputs))
    for b, c in ((0, 0), (1, 6)):
        arguments, loc, scale = model.network(x_BNC[b : b + 1, :, c], torch.ones(1, 336, dtype=torch.float64))
        assert loc.item() == pytest.approx(x_BNC[b, :, c].mean().item(), rel=1e-6)
        if head == "student-t":
            distribution = model.network.distr_output.distribution(arguments, loc=loc, scale=scale)
            expected = torch.tensor(
                [[distribution.mean[0, h], distribution.stddev[0, h]] for h in range(8)], dtype=torch.float64
            )
            location, spread, degrees = found[b, :, c].unbind(-1)
            mine = torch.stack([location, spread * (degrees / (degrees - 2)).sqrt()], dim=-1)
            assert torch.allclose(mine, expected, rtol=1e-6)
        else:
            expected = arguments[0][0] * scale[0] + loc[0]
            assert torch.allclose(found[b, :, c].reshape(8, -1), expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dlinear", "patchtst"])
def test_gluonts_models_are_trained_by_the_runner_and_on_the_mixers_board(name, runs):
    made = start(tiny(f"baseline/{name}", "steps=12"), data_dir=None, device="cpu").record
    again = start(tiny(f"baseline/{name}", "steps=12"), data_dir=None, device="cpu").record
    softmax = start(tiny("softmax", "steps=12"), data_dir=None, device="cpu").record
    assert (made.status, made.error) == ("finished", None)
    assert len(made.loss_trace) == 12
    assert made.loss_trace == again.loss_trace
    assert made.metrics["test"] == again.metrics["test"]
    assert made.group == softmax.group
    assert made.n_evaluated == {"valid": 16, "test": 16}
    [shown] = board.boards([made, softmax])
    assert {row.mixer: row.place for row in shown.rows} == {"softmax": 1, f"baseline/{name}": None}
    fitted = {name: p.numel() for name, p in _model(made.config).named_parameters() if p.requires_grad}
    assert made.certificate.parameters == sum(fitted.values())
    assert not any("positional" in name for name in fitted)  # a fixed table of sines


def _model(config: RunConfig) -> nn.Module:
    candidate, task = parse(config.mixer), tasks.get(config.task)(config.data)
    return candidate.build(config, task, candidate.plan(config, task.spec))


@pytest.mark.slow
def test_the_flops_of_a_linear_baseline_are_those_of_its_products():
    config = tiny("baseline/dlinear", "hidden=3")
    certificate = certify(config)
    products = 2 * 336 * 8 * 3 + 8 * 3  # two maps of the window, and the output layer of each step
    assert certificate.flops == 2 * 7 * products
    assert certificate.parameters == 2 * (336 * 24 + 24) + 3 + 1


def test_without_lightning_gluonts_models_are_refused_in_one_line(monkeypatch):
    for loaded in [name for name in sys.modules if name.split(".")[:2] == ["gluonts", "torch"]]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    config = tiny("baseline/dlinear")
    with pytest.raises(
        BaselineError, match=r"needs Lightning \(.*\): pip install 'mixer-suite\[baselines\]'"
    ) as caught:
        certify(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "message"), [("weather", "144 steps does not fit into a look-back of 96"), ("csv", "no known season")]
)
def test_a_season_that_does_not_fit_is_refused(task, message):
    config = resolve(task=task, mixer="baseline/seasonal-naive", track="fixed-96")
    with pytest.raises(BaselineError, match=message):
        certify(config)
