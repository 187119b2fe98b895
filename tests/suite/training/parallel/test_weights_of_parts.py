"""Ranks that score different numbers of values: the loss and its gradient are those of the whole batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from suite.config.run_config import TrainConfig
from suite.training.parallel.ranks import Ranks
from suite.training.parallel.trainer import ParallelTrainer
from tasks.base import Batch
from tests.tolerances import FP32

IGNORED = -100


class Two(Ranks):
    """Two ranks, of which the other one scores a given number of values."""

    def __init__(self, other: float) -> None:
        super().__init__(0, 2)
        self.other = other

    def exchange(self, values: list[float]) -> list[list[float]]:
        return [values, [self.other] * len(values)]


def trainer(model: torch.nn.Module, ranks: Ranks, *, scores_rows: bool = False) -> ParallelTrainer:
    """A trainer of which only the loss and its gradient are used."""
    made = object.__new__(ParallelTrainer)
    task = SimpleNamespace(loss=lambda y, batch: F.cross_entropy(y, batch.targets, ignore_index=IGNORED))
    made.__dict__ |= {
        "forwarded": model,
        "task": task,
        "ranks": ranks,
        "device": torch.device("cpu"),
        "config": SimpleNamespace(train=TrainConfig(precision="fp32")),
        "_scores_rows": scores_rows,
    }
    return made


def test_a_batch_has_the_values_of_all_ranks():
    assert trainer(torch.nn.Linear(2, 2), Two(1.0))._total(3.0) == 4.0
    assert trainer(torch.nn.Linear(2, 2), Two(99.0), scores_rows=True)._total(3.0) == 6.0


@pytest.mark.parametrize("scored", [(3, 1), (4, 0)])
def test_the_gradients_of_unequal_ranks_average_to_that_of_the_whole_batch(scored):
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 5), torch.randint(3, (8,))
    for rank, count in enumerate(scored):
        targets[4 * rank + count : 4 * rank + 4] = IGNORED
    model, gradients, value = torch.nn.Linear(5, 3), [], 0.0
    for rank, count in enumerate(scored):
        model.zero_grad()
        rows = slice(4 * rank, 4 * rank + 4)
        part = Batch(inputs[rows], targets[rows])
        value += trainer(model, Two(0.0))._backward_part(part, count, sum(scored))
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    wide = torch.nn.Linear(5, 3).double()
    wide.load_state_dict(model.state_dict())
    expected = F.cross_entropy(wide(inputs.double()), targets, ignore_index=IGNORED)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=FP32)
    for first, second, parameter in zip(*gradients, wide.parameters(), strict=True):
        assert parameter.grad is not None
        error = ((first + second) / 2 - parameter.grad).abs().max()
        assert error <= FP32 * parameter.grad.abs().max()
