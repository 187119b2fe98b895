"""Calls of all registered kernels, for tests that are the same for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from kernels.calls import Call
from kernels.registry import KERNELS, Kernel


def cases(chosen: Callable[[Kernel], bool] = lambda kernel: True) -> list[ParameterSet]:
    """(kernel, call) of each call of the chosen kernels."""
    return [
        pytest.param(kernel, call, id=f"{kernel.name}, {call.name}")
        for kernel in KERNELS
        if chosen(kernel)
        for call in kernel.calls
    ]


def side_by_side(kernel: Kernel, results: Any) -> Tensor:
    """All results of a call as one tensor `[B, T, …]`."""
    found = results if isinstance(results, tuple) else (results,)
    batch, token = kernel.leading.index("B"), kernel.leading.index("T")
    return torch.cat([y.movedim((batch, token), (0, 1)).flatten(2) for y in found], -1)


def computed(
    kernel: Kernel, call: Call, tensors: Iterable[Tensor], function: Callable[..., Any] | None = None
) -> Tensor:
    """Results `[B, T, …]` of the public function, or of another with the same arguments."""
    return side_by_side(kernel, (function or kernel.load())(*call.arguments(*tensors)))


def with_gradients(
    kernel: Kernel, call: Call, tensors: Sequence[Tensor], function: Callable[..., Any] | None = None
) -> list[Tensor]:
    """The results, and the gradient of every tensor from one random upstream gradient."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = computed(kernel, call, leaves, function)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def names(call: Call) -> list[str]:
    """What `with_gradients` returns, in words."""
    return ["results", *(f"gradient of {x.name}" for x in call.inputs)]
