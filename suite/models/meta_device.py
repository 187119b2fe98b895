"""Modules on the meta device: their parameters are counted, and nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def _functions(names: str, *holders: object) -> frozenset[object]:
    return frozenset(getattr(holder, name) for holder in holders for name in names.split() if hasattr(holder, name))


_DRAWS = _functions("normal_ uniform_ trunc_normal_ kaiming_uniform_ kaiming_normal_ exponential_", nn.init, Tensor)
_POINTWISE = _functions(
    "exp expm1 log log1p sqrt rsqrt sigmoid neg __neg__ add __add__ __radd__ sub __sub__ __rsub__ mul __mul__ __rmul__ "
    "div __truediv__ __rtruediv__ empty_like zeros_like ones_like",
    torch,
    Tensor,
)


class _NoValues(TorchFunctionMode):
    """Leaves out drawing and transforming values where there are none: PyTorch would do it in Python, and import its
    compiler for that (2 CPU seconds).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named: Mapping[str, Any] = kwargs or {}
        tensors = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        if func in _DRAWS and tensors:
            return tensors[0]
        if func in _POINTWISE and tensors:
            dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
            return torch.empty(np.broadcast_shapes(*(t.shape for t in tensors)), dtype=dtype)
        if func is torch.arange and not named and all(isinstance(value, int) for value in args):
            return torch.empty(len(range(*args)))
        return func(*args, **named)


@contextmanager
def meta_device() -> Iterator[None]:
    """Builds modules on the meta device within a `with` block. Their tensors have shapes and no values.

    Yields:
        Nothing.
    """
    with torch.device("meta"), _NoValues():
        yield
