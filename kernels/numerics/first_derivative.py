"""Kernels whose backward pass is not differentiable itself refuse a second derivative.

PyTorch's `once_differentiable` is not enough: it replaces the gradients by leaves of another graph, so
`autograd.grad(…, inputs=x)` and `autograd.functional.hvp`, which visit only what leads to x, silently lose every term
that passes through the kernel's gradient. Here the gradients stay connected to the kernel's inputs by a node that
raises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Gradients = Tensor | tuple[Tensor | None, ...] | None


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the `backward` of a `torch.autograd.Function` that computes without recording a graph.

    The tensors that its results depend on must be its arguments or among those that the forward pass saved as they
    came.

    Args:
        backward: `(ctx, *gradients)` → gradients of the inputs.

    Returns:
        The same function. Where a graph of it is requested (`create_graph=True`), differentiating its results raises a
        RuntimeError.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor | None) -> Gradients:
        with torch.no_grad():
            results: Gradients = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return results
        sources = [t for t in (*grads, *ctx.saved_tensors) if isinstance(t, Tensor) and t.requires_grad]
        if not sources or results is None:
            return results
        found = results if isinstance(results, tuple) else (results,)
        tensors = [t for t in found if t is not None]
        linked = iter(_Refused.apply(type(ctx).__name__.removesuffix("Backward"), len(tensors), *tensors, *sources))
        joined = tuple(None if t is None else next(linked) for t in found)
        return joined if isinstance(results, tuple) else joined[0]

    return guarded


class _Refused(torch.autograd.Function):
    """(name, n, n gradients, what they depend on) → the gradients, whose derivative is an error."""

    @staticmethod
    def forward(ctx: Any, name: str, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.kernel = name
        return tuple(t.view_as(t) for t in tensors[:n])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            f"kernel {ctx.kernel} has no second derivative; SUITE_COMPILED_KERNELS=off SUITE_TRITON_KERNELS=off uses "
            "PyTorch's own operations, which have one (except those of HyperMLP, HyperGLU and short convolutions)"
        )
