"""Results without elements, for calls without sequences (B = 0) or without tokens (T = 0)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def nothing(shape: Sequence[int], *sources: Tensor | None) -> Tensor:
    """An empty result that depends on the inputs of a kernel, so that their gradients are zeros.

    Args:
        shape: the shape of the result; one of its sizes is 0.
        sources: the tensors of the call, the first of which has the dtype and device of the result.

    Returns:
        The result.
    """
    first, *others = [x for x in sources if x is not None and x.is_floating_point()]
    total = first.sum()
    for x in others:
        total = total + x.sum().to(first.dtype)
    return total.expand(*shape)
