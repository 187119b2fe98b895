"""Every registered Triton kernel against the public function in fp64 on a CPU: values and gradients."""

from __future__ import annotations

import pytest
import torch

from kernels.calls import Call
from kernels.registry import Kernel
from tests.kernels.every_kernel import cases, computed, names, with_gradients
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.tolerances import FP32_SCAN

SHORT = {"T": 3, "B": 1, "H": 1}
LONGER = {"T": 20}
CHANGED = 13
every_call = pytest.mark.parametrize(("kernel", "call"), cases(lambda kernel: kernel.triton))


@every_call
@pytest.mark.parametrize("sizes", [SHORT, pytest.param(LONGER, marks=pytest.mark.slow)], ids=["short", "longer"])
def test_values_and_gradients_are_those_of_the_public_function(
    kernel: Kernel, call: Call, sizes: dict[str, int]
) -> None:
    tensors = call.draw(torch.float32, **sizes)
    got = with_gradients(kernel, call, tensors, kernel.load_triton())
    wanted = with_gradients(kernel, call, [x.double() for x in tensors])
    for name, narrow, wide in zip(names(call), got, wanted, strict=True):
        assert_close(name, narrow, wide, 4 * FP32_SCAN)


@pytest.mark.slow
@every_call
def test_later_tokens_change_no_bit_of_earlier_results(kernel: Kernel, call: Call) -> None:
    tensors = call.draw(torch.float32, **LONGER)
    before = computed(kernel, call, tensors, kernel.load_triton())
    for x, tensor in zip(call.inputs, tensors, strict=True):
        if x.reach != "all":
            tensor.narrow(x.dims.index("T"), CHANGED, LONGER["T"] - CHANGED).mul_(0.5)
    after = computed(kernel, call, tensors, kernel.load_triton())
    assert torch.equal(after[:, :CHANGED], before[:, :CHANGED])
    assert not torch.equal(after[:, CHANGED:], before[:, CHANGED:])
