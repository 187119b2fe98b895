"""Kernels that choose their implementation by their values, under torch.compile.

In eager mode such a kernel is called directly. A compiled graph must not branch on data, so there the kernel is one
opaque operation, and its backward another, which computes the kernel again and differentiates it. The graph is not
broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from kernels.numerics.nothing import nothing

Kernel = Callable[[list[Tensor], list[int]], Sequence[Tensor]]
_kernels: dict[str, Kernel] = {}
_outputs: dict[str, Callable[[list[Tensor]], Sequence[Tensor]]] = {}
with ThreadPoolExecutor(1) as _new_thread:
    # what dispatch looks like in eager mode; this thread may be tracing, if a mixer is loaded inside of a traced call
    _EAGER = _new_thread.submit(
        lambda: (torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set())
    ).result()


def opaque(
    name: str, kernel: Kernel, outputs: Callable[[list[Tensor]], Sequence[Tensor]], exported_only: bool = False
) -> Kernel:
    """`kernel(tensors, options)` as a function of the same kind.

    Args:
        name: its name in graphs.
        kernel: computes the results; it is not called where they have no elements.
        outputs: (tensors) → uninitialised contiguous tensors of the shapes and dtypes of the results.
        exported_only: whether torch.compile traces it and `torch.export` alone does not: export cannot trace
            operations that write their results into given memory.

    Returns:
        The function.
    """
    _kernels[name], _outputs[name] = kernel, outputs

    def run(tensors: list[Tensor], options: list[int]) -> Sequence[Tensor]:
        if any(t.numel() == 0 for t in tensors) and all(t.numel() == 0 for t in outputs(tensors)):
            return [nothing(t.shape, t, *tensors) for t in outputs(tensors)]
        if torch.compiler.is_exporting() if exported_only else torch.compiler.is_compiling():
            results: list[Tensor] = torch.ops.mixer_suite.run(name, tensors, options or [0])  # it takes no empty list
            return results
        return kernel(tensors, options)

    return run


@torch.library.custom_op("mixer_suite::run", mutates_args=())
def _run(name: str, tensors: list[Tensor], options: list[int]) -> list[Tensor]:
    with torch.no_grad():
        return [out.contiguous().clone() for out in _kernels[name](tensors, options)]


@_run.register_fake
def _(name: str, tensors: list[Tensor], options: list[int]) -> list[Tensor]:
    return list(_outputs[name](tensors))


@torch.library.custom_op("mixer_suite::run_backward", mutates_args=())
def _run_backward(name: str, tensors: list[Tensor], options: list[int], grads: list[Tensor]) -> list[Tensor]:
    inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in tensors]
    # an operation runs below autograd; this one differentiates, so it returns above it, as PyTorch's opaque calls do
    with torch._C._ForceDispatchKeyGuard(*_EAGER), torch.enable_grad():
        outs = _kernels[name](inputs, options)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad(outs, wanted, grads, allow_unused=True, materialize_grads=True))
    return [next(found).contiguous().clone() if t.requires_grad else torch.zeros_like(t) for t in inputs]


@_run_backward.register_fake
def _(name: str, tensors: list[Tensor], options: list[int], grads: list[Tensor]) -> list[Tensor]:
    return [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in tensors]


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.name, tensors, ctx.options = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grads: list[Tensor]) -> tuple[None, list[Tensor | None], None]:  # type: ignore[no-untyped-def]
    tensors = list(ctx.saved_tensors)
    found = torch.ops.mixer_suite.run_backward(ctx.name, tensors, ctx.options, [g.contiguous() for g in grads])
    return None, [g if t.is_floating_point() else None for t, g in zip(tensors, found, strict=True)], None


_run.register_autograd(_backward, setup_context=_setup)
