"""Every registered kernel on tensors without sequences, and without tokens: empty results, and zero gradients."""

from __future__ import annotations

import pytest
import torch

from kernels.calls import Call
from kernels.registry import Kernel
from tests.kernels.every_kernel import cases, with_gradients


@pytest.mark.parametrize("missing", ["B", "T"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize(("kernel", "call"), cases())
@pytest.mark.parametrize("cpp_or_pytorch", ["c++", pytest.param("pytorch", marks=pytest.mark.slow)], indirect=True)
def test_empty_inputs_give_empty_results_and_zero_gradients(
    kernel: Kernel, call: Call, dtype: torch.dtype, missing: str, cpp_or_pytorch: str
) -> None:
    tensors = call.draw(dtype, **{missing: 0})
    out, *gradients = with_gradients(kernel, call, tensors)
    assert out.dtype == dtype
    usual = with_gradients(kernel, call, call.draw(dtype))[0]
    expected = {"B": (0, *usual.shape[1:]), "T": (usual.shape[0], 0, *usual.shape[2:])}
    assert tuple(out.shape) == expected[missing]
    for x, tensor, gradient in zip(call.inputs, tensors, gradients, strict=True):
        assert gradient.shape == tensor.shape, x.name
        assert not gradient.any(), x.name
