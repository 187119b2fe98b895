"""Batch norm over two ranks: outputs, gradients and running statistics are those of the whole batch in fp64."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.training.parallel import batch_norm
from suite.training.parallel.batch_norm import share_statistics
from tests.tolerances import FP32

ROWS = (5, 3)  # of each rank


@pytest.fixture
def ranks_as_threads(monkeypatch):
    """Two threads add up their tensors, as two ranks do."""
    barrier, given = threading.Barrier(2, timeout=20), dict[int, Tensor]()
    rank_of = threading.local()

    def summed(x: Tensor, group: Any) -> Tensor:
        given[rank_of.rank] = x
        barrier.wait()
        total = given[0] + given[1]
        barrier.wait()
        return total

    monkeypatch.setattr(batch_norm, "_summed", summed)
    return rank_of


@pytest.mark.parametrize("momentum", [0.1, None])
def test_two_ranks_normalise_by_the_statistics_of_all_rows(ranks_as_threads, momentum):
    torch.manual_seed(0)
    inputs = 3 + 2 * torch.randn(sum(ROWS), 4, 6)
    weights = torch.randn_like(inputs)
    exact = nn.BatchNorm1d(4, momentum=momentum).double()
    nn.init.normal_(exact.weight)
    wide = inputs.double().requires_grad_()
    expected = exact(wide)
    (expected * weights.double()).sum().backward()
    found: dict[int, tuple[Tensor, Tensor, nn.Module]] = {}

    def rank(number: int) -> None:
        ranks_as_threads.rank = number
        with torch.autograd.set_multithreading_enabled(False):  # backward in this thread, which has the rank's number
            part = slice(0, ROWS[0]) if number == 0 else slice(ROWS[0], None)
            model = nn.BatchNorm1d(4, momentum=momentum)
            model.load_state_dict({**exact.state_dict(), **nn.BatchNorm1d(4).state_dict(), "weight": exact.weight})
            share_statistics(model, None)  # type: ignore[arg-type]
            x = inputs[part].clone().requires_grad_()
            y = model(x)
            (y * weights[part]).sum().backward()
            assert x.grad is not None
            found[number] = (y.detach(), x.grad, model)

    threads = [threading.Thread(target=rank, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wide.grad is not None
    near(torch.cat([found[0][0], found[1][0]]), expected.detach())
    near(torch.cat([found[0][1], found[1][1]]), wide.grad)
    for _, _, model in found.values():
        near(model.running_mean, exact.running_mean)  # type: ignore[arg-type]
        near(model.running_var, exact.running_var)  # type: ignore[arg-type]
    for name, parameter in exact.named_parameters():
        summed = sum(dict(model.named_parameters())[name].grad for _, _, model in found.values())  # type: ignore[misc]
        near(summed, parameter.grad)  # type: ignore[arg-type]


def near(found: Tensor, expected: Tensor) -> None:
    assert (found.double() - expected).abs().max() <= 4 * FP32 * expected.abs().max()
