"""Every registered kernel at odd widths, and every scan over sequences of thousands of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.calls import Call
from kernels.registry import Kernel
from tests.kernels.every_kernel import cases, names, with_gradients
from tests.tolerances import FP32_SCAN, FP64, fp32_sum

#: Widths of keys and of values: each of 1, 3, 5 and 17 as either, none of them a multiple of a vector register.
ODD = [(1, 3), (3, 5), (5, 17), (17, 1)]
LONG = 20_011
LESS_LONG = {"linear_exact": 5_003, "selective_exact": 515}  # they run one step of Python per token or per few
SCANS = (
    "linear",
    "linear_exact",
    "linear_free_energy",
    "selective",
    "selective_exact",
    "selective_free_energy",
    "channelwise",
    "channelwise_free_energy",
    "scan",
    "prefix_softmax",
    "short_conv",
    "taylor",
)
#: Kernels that normalise over a width. Over one channel x / |x| is a sign: its gradient is zero, and fp32 leaves a
#: rounding of 2⁻²⁴ over |x|, whose smallest of some hundred draws is 1e-3 or less.
NORMALISING = ("rms_norm", "gates", "hyper", "linear_exact", "linear_free_energy")
OVER_ONE_CHANNEL = 2.0**-24 / 2e-4
odd_widths = pytest.mark.parametrize(
    ("keys", "values"),
    [pytest.param(k, v, id=f"{k}-{v}", marks=() if (k, v) in ODD[1:3] else pytest.mark.slow) for k, v in ODD],
)


def odd(kernel: Kernel, call: Call, keys: int, values: int) -> dict[str, int]:
    """Sizes of a small call. Rotary positions turn pairs of channels."""
    pairs = 2 if kernel.name == "rotation" or call.name == "rotated" else 1
    return {"k": pairs * keys, "w": values, "E": values, "D": values, "N": keys, "F": keys, "U": 2 * keys, "T": 37}


def assert_near(
    call: Call, found: list[Tensor], wanted: list[Tensor], values: float, gradients: float, least: float = 1e-2
) -> None:
    """Tolerances of results and of gradients, relative to the largest entry, or to `least` of gradients where that is
    larger.
    """
    tolerances = [(values, 1e-2), *[(gradients, least)] * len(call.inputs)]
    for name, one, other, (tolerance, floor) in zip(names(call), found, wanted, tolerances, strict=True):
        error, size = float((one - other).abs().max()), float(other.abs().max())
        assert error <= tolerance * max(size, floor), f"{name}: off by {error:.2g}, largest entry {size:.2g}"


@odd_widths
@pytest.mark.parametrize(("kernel", "call"), cases())
@pytest.mark.parametrize("cpp_or_pytorch", ["c++", pytest.param("pytorch", marks=pytest.mark.slow)], indirect=True)
def test_odd_widths_have_the_values_and_gradients_of_pytorch_in_fp64(
    kernel: Kernel, call: Call, keys: int, values: int, cpp_or_pytorch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = call.draw(torch.float32, **odd(kernel, call, keys, values))
    single = with_gradients(kernel, call, tensors)
    double = with_gradients(kernel, call, [x.double() for x in tensors])
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    wanted = with_gradients(kernel, call, [x.double() for x in tensors])
    assert_near(call, double, wanted, FP64, FP64)
    if kernel.name in NORMALISING and min(keys, values) == 1:
        assert_near(call, single, wanted, FP32_SCAN, OVER_ONE_CHANNEL, least=1.0)
    else:
        assert_near(call, single, wanted, FP32_SCAN, FP32_SCAN)


def weak(call: Call, tensors: list[Tensor]) -> list[Tensor]:
    """The same with decays so weak that a row remembers thousands of tokens."""
    found = []
    for x, tensor in zip(call.inputs, tensors, strict=True):
        if x.values == "unit":
            tensor = 1 - 1e-4 * tensor
        found.append(1e-4 * tensor if x.values == "negative" else tensor)
    return found


def assert_long_sequences_keep_their_digits(kernel: Kernel, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = LESS_LONG.get(kernel.name, LONG)
    tensors = weak(call, call.draw(torch.float32, B=1, T=tokens, H=1, k=2, w=3, D=3, E=3, N=2))
    single = with_gradients(kernel, call, tensors)
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    wanted = with_gradients(kernel, call, [x.double() for x in tensors])
    assert_near(call, single, wanted, FP32_SCAN, 4 * fp32_sum(tokens))  # gradients are sums over sums of so many terms


@pytest.mark.parametrize(("kernel", "call"), cases(lambda kernel: kernel.name in SCANS))
@pytest.mark.slow
def test_fp32_keeps_its_digits_over_thousands_of_tokens(
    kernel: Kernel, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_long_sequences_keep_their_digits(kernel, call, monkeypatch)
