"""New memory is NaN, and products of bfloat16 are corrected: Triton's interpreter multiplies their bits as integers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

assert os.environ.get("TRITON_INTERPRET") == "1", "run by tests/kernels/gpu/test_interpreted.py"

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402


def widened(x: Any) -> Any:
    """A bfloat16 operand as fp32, as the interpreter does for fp8."""
    if x.dtype.scalar != tl.bfloat16:
        return x
    return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


@pytest.fixture(autouse=True, scope="session")
def _products_of_bfloat16() -> None:
    plain = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain(self, widened(a), widened(b), *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function, whose floating-point results are filled with NaN."""

    def made(*args: Any, **kwargs: Any) -> Tensor:
        x = make(*args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() else x

    return made


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel reads or returns without writing it is NaN."""
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
