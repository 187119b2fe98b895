"""Kernels whose backward pass is not differentiable itself refuse a second derivative.

PyTorch's `once_differentiable` is not enough: it replaces the gradients by leaves of another graph, so
`autograd.grad(…, inputs=x)` and `autograd.functional.hvp`, which visit only what leads to x, silently lose every term
that passes through the kernel's gradient. Here the gradients stay connected to the kernel's inputs by a node that
raises. What connects them is a saved result, or the saved inputs themselves. A copy of an input that the forward pass
made (`contiguous()`, `to()`, a reshape) has no graph: where only copies were saved, the gradient itself is refused.
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

    Args:
        backward: `(ctx, *gradients)` → gradients of the inputs.

    Returns:
        The same function. Where a graph of it is requested (`create_graph=True`), differentiating its results raises a
        RuntimeError; so does the call itself where the saved tensors are copies and lead to no input.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor | None) -> Gradients:
        with torch.no_grad():
            results: Gradients = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return results
        name = type(ctx).__name__.removesuffix("Backward")
        saved = [t for t in ctx.saved_tensors if isinstance(t, Tensor) and t.requires_grad]
        if not any(t.grad_fn is ctx for t in saved) and len(saved) < sum(ctx.needs_input_grad):
            raise RuntimeError(_message(name))
        sources = [*saved, *(t for t in grads if t is not None and t.requires_grad)]
        if not sources or results is None:
            return results
        found = results if isinstance(results, tuple) else (results,)
        tensors = [t for t in found if t is not None]
        linked = iter(_Refused.apply(name, len(tensors), *tensors, *sources))
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
        raise RuntimeError(_message(ctx.kernel))


def _message(kernel: str) -> str:
    return (
        f"kernel {kernel} has no second derivative; the mixers linear, retention and taylor have one with "
        "SUITE_COMPILED_KERNELS=off SUITE_TRITON_KERNELS=off"
    )
