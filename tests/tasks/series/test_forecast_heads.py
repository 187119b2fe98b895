"""Distributions as forecasts: their losses, quantiles and scores against plain sums, scipy, and GluonTS's
evaluators.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tasks.base import Batch
from tasks.series.forecasting import HouseholdPower
from tasks.series.heads import LEVELS, loss_of, point_of, quantiles_of, student_quantiles
from tasks.series.options import ForecastOptions


@pytest.fixture(scope="module")
def scored():
    """household-power with either head: the task and one batch of validation windows."""
    made = {}
    for head in ("student-t", "quantile"):
        task = HouseholdPower(ForecastOptions(horizon=5, head=head, valid_limit=23))
        made[head] = task, next(task.eval_batches("valid", 23))
    return made


def forecasts_of(head: str, batch: Batch) -> torch.Tensor:
    """Distributions with random errors."""
    generator = torch.Generator().manual_seed(3)
    wrong = batch.targets + 0.5 * torch.randn(batch.targets.shape, generator=generator)
    if head == "quantile":
        return wrong.unsqueeze(-1) + torch.linspace(-1, 1, 9) * torch.rand(wrong.shape, generator=generator).unsqueeze(
            -1
        )
    scale, degrees = (torch.rand(wrong.shape, generator=generator) + offset for offset in (0.1, 2.0))
    return torch.stack([wrong, scale, degrees * 3], dim=-1)


def test_the_quantiles_of_a_student_t_are_the_exact_ones():
    degrees = torch.tensor([2.0, 2.0001, 2.5, 3.0, 7.7, 40.0, 1e4, 1e9], dtype=torch.float64)
    exact = stats.t.ppf(np.array(LEVELS), degrees.numpy()[:, None])
    assert np.abs(student_quantiles(degrees).numpy() - exact).max() < 1e-6


def test_the_student_t_is_trained_on_its_likelihood():
    outputs = torch.tensor([[[[0.3, 0.7, 4.0]], [[-1.0, 2.0, 9.0]]]], dtype=torch.float64)
    targets = torch.tensor([[[1.0], [-2.5]]], dtype=torch.float64)
    exact = -np.mean([stats.t.logpdf(1.0, 4.0, 0.3, 0.7), stats.t.logpdf(-2.5, 9.0, -1.0, 2.0)])
    assert loss_of("student-t", outputs, targets).item() == pytest.approx(exact, rel=1e-12)


def test_the_quantile_loss_is_lowest_at_the_quantiles_of_the_data():
    values = torch.from_numpy(stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)).view(-1, 1, 1)
    own = torch.from_numpy(stats.norm.ppf(np.array(LEVELS))).expand(20_000, 1, 1, 9).clone().requires_grad_()
    loss_of("quantile", own, values).backward()
    assert own.grad is not None
    assert own.grad.sum(0).abs().max() < 1e-4
    for level in range(9):
        off = own.detach().clone()
        off[..., level] += 0.1
        assert loss_of("quantile", off, values) > loss_of("quantile", own, values) + 1e-5


@pytest.mark.parametrize("head", ["student-t", "quantile"])
def test_crps_and_mase_equal_a_loop(scored, head):
    task, batch = scored[head]
    outputs = forecasts_of(head, batch)
    found = task.summarise(task.measure(outputs, batch))
    train = task.series[: task.borders[0]].double().numpy()
    season = [np.mean([abs(train[t, c] - train[t - 24, c]) for t in range(24, len(train))]) for c in range(7)]
    loss = scaled = squares = weight = 0.0
    for b in range(23):
        for h in range(5):
            for c in range(7):
                y = batch.targets[b, h, c].item()
                o = outputs[b, h, c].tolist()
                quantiles = o if head == "quantile" else stats.t.ppf(np.array(LEVELS), o[2], o[0], o[1])
                loss += (
                    sum(
                        2 * (q * (y - z) if y > z else (1 - q) * (z - y))
                        for q, z in zip(LEVELS, quantiles, strict=True)
                    )
                    / 9
                )
                scaled += abs(y - quantiles[4]) / season[c]
                squares += (y - quantiles[4]) ** 2
                weight += abs(y)
    n = 23 * 5 * 7
    assert found["crps"] == pytest.approx(loss / weight, rel=1e-6)
    assert found["loss"] == pytest.approx(loss / n, rel=1e-6)
    assert found["mase"] == pytest.approx(scaled / n, rel=1e-6)
    assert found["mse"] == pytest.approx(squares / n, rel=1e-6)
    assert set(found) == {metric.name for metric in task.metrics}
    assert task.primary.name == "crps"


@pytest.mark.parametrize("head", ["student-t", "quantile"])
def test_the_scores_equal_those_of_gluonts_streaming_evaluators(scored, head):
    from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss

    task, batch = scored[head]
    outputs = forecasts_of(head, batch)
    found = task.summarise(task.measure(outputs, batch))
    quantiles = quantiles_of(task.options.head, outputs.double()).numpy()
    data = {str(level): quantiles[..., i] for i, level in enumerate(LEVELS)}
    data["label"] = np.ma.masked_invalid(batch.targets.double().numpy())
    data["seasonal_error"] = task.seasonal_error.expand_as(batch.targets).numpy()
    for metric, name in ((MASE(), "mase"), (MeanWeightedSumQuantileLoss(LEVELS), "crps")):
        evaluator = metric(axis=None)
        for at in range(0, 23, 6):
            evaluator.update({key: value[at : at + 6] for key, value in data.items()})
        assert found[name] == pytest.approx(float(evaluator.get()), rel=1e-9)


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("head", ["student-t", "quantile"])
def test_the_scores_do_not_change_with_the_batch_size(scored, head, size):
    task, whole = scored[head]
    outputs = forecasts_of(head, whole)
    totals: dict[str, tuple[float, float]] = {}
    for at in range(0, 23, size):
        part = Batch(whole.inputs[at : at + size], whole.targets[at : at + size])
        for name, (total, count) in task.measure(outputs[at : at + size], part).items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + total, before[1] + count)
    assert task.summarise(totals) == pytest.approx(task.summarise(task.measure(outputs, whole)), rel=1e-12)


def test_a_point_is_scored_as_a_distribution_of_zero_width(scored):
    task, batch = scored["quantile"]
    points = batch.targets + 0.25
    assert torch.equal(point_of("quantile", points), points)
    found = task.summarise(task.measure(points, batch))
    assert found["loss"] == pytest.approx(found["mae"], rel=1e-6)
    assert found["crps"] == pytest.approx(0.25 / batch.targets.abs().double().mean().item(), rel=1e-5)


def test_the_seasonal_error_is_of_the_training_part_alone():
    class Disturbed(HouseholdPower):
        def _split_and_scale(self, values, borders):
            values = values.copy()
            values[borders[0] :] *= -100
            super()._split_and_scale(values, borders)

    plain, disturbed = HouseholdPower(), Disturbed()
    plain.load()
    disturbed.load()
    assert plain.seasonal_error is not None
    assert disturbed.seasonal_error is not None
    assert torch.equal(plain.seasonal_error, disturbed.seasonal_error)
    assert math.isfinite(float(plain.seasonal_error.sum()))
