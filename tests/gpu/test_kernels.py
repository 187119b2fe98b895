"""Every Triton kernel on the device against PyTorch in fp64: values, gradients, extremes; equal bits when repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from kernels.calls import Call
from kernels.registry import KERNELS, Kernel
from tests.gpu.place import INTERPRETED, LENGTHS, REPEATS
from tests.kernels.every_kernel import names, with_gradients
from tests.kernels.gpu.interpreted.comparing import assert_close
from tests.tolerances import BF16, FP32_SCAN

#: The interpreter multiplies bf16 wrongly (tests/kernels/gpu/interpreted/conftest.py).
DTYPES = (torch.float32,) if INTERPRETED else (torch.float32, torch.bfloat16)
TOLERANCES = {torch.float32: 4 * FP32_SCAN, torch.bfloat16: BF16}
STEPS = (40.0, 200.0)
Property = Callable[[str, object], None]


def calls() -> list[ParameterSet]:
    """(kernel, call, sizes): small ones, and those that are compiled ahead of time."""
    found = []
    for kernel in KERNELS:
        for call in kernel.calls if kernel.triton else ():
            wide = [] if INTERPRETED else [shape.sizes for shape in call.on_gpu]
            for sizes in ({}, *wide):
                shown = " ".join(f"{letter}{size}" for letter, size in sizes.items())
                found.append(pytest.param(kernel, call, sizes, id=f"{kernel.name}, {call.name}, {shown or 'small'}"))
    return found


every_call = pytest.mark.parametrize(("kernel", "call", "sizes"), calls())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_length = pytest.mark.parametrize("tokens", LENGTHS)


@pytest.fixture(params=["first tiles, new memory is NaN", "tiles chosen by timing"])
def tiles(request: pytest.FixtureRequest) -> Iterator[str]:
    """PyTorch fills new memory where it is deterministic, and kernels then take the first of their tiles."""
    torch.use_deterministic_algorithms(request.param.startswith("first"))
    yield request.param
    torch.use_deterministic_algorithms(False)


def drawn(
    kernel: Kernel, call: Call, sizes: Mapping[str, int], tokens: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """The tensors of a call on the device; skips what the kernel refuses."""
    small = {"B": 1, "H": 1} if INTERPRETED else {"B": 2, "H": 2}
    tensors = [x.to(device) for x in call.draw(dtype, **{**small, **sizes, "T": tokens})]
    module = __import__(f"kernels.gpu.{kernel.name}", fromlist=["refusal"])
    if reason := module.refusal(*call.arguments(*tensors)):
        pytest.skip(f"{kernel.name} refuses {dtype}: {reason}")
    return tensors


@pytest.fixture
def tensors(
    kernel: Kernel,
    call: Call,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    tokens: int,
    device: torch.device,
    record_property: Property,
) -> list[Tensor]:
    """Those of the test's parameters, of whose kernel the result is counted."""
    record_property("kernel", kernel.name)
    return drawn(kernel, call, sizes, tokens, dtype, device)


def assert_right(kernel: Kernel, call: Call, tensors: list[Tensor]) -> None:
    """Against the public function in fp64, which no Triton kernel takes."""
    got = with_gradients(kernel, call, tensors, kernel.load_triton())
    wanted = with_gradients(kernel, call, [x.double() for x in tensors])
    for name, narrow, wide in zip(names(call), got, wanted, strict=True):
        assert_close(name, narrow, wide, TOLERANCES[tensors[0].dtype], cancelling(name, call, tensors))


def cancelling(name: str, call: Call, tensors: list[Tensor]) -> float:
    """The size of the terms that cancel in a gradient, 0 where none do: a token alone has weight 1 whatever its scores
    are, and the gradient of β is a difference of two sums over all tokens.
    """
    by_name = dict(zip((x.name for x in call.inputs), tensors, strict=True))
    values = float(by_name["u" if "u" in by_name else "v" if "v" in by_name else "x"].abs().max())
    [tokens] = {x.shape[at.dims.index("T")] for at, x in zip(call.inputs, tensors, strict=True) if "T" in at.dims}
    if name == "gradient of beta":
        return values * tokens / float(by_name["beta"].abs().min())
    return values if tokens == 1 and name != "results" else 0.0


@every_call
@every_dtype
@every_length
@pytest.mark.usefixtures("tiles")
def test_values_and_gradients_are_those_of_pytorch_in_fp64(kernel: Kernel, call: Call, tensors: list[Tensor]) -> None:
    assert_right(kernel, call, tensors)


@every_call
@every_dtype
@every_length
@pytest.mark.usefixtures("tiles")
def test_repeating_a_call_changes_no_bit(kernel: Kernel, call: Call, tensors: list[Tensor]) -> None:
    first, *others = [with_gradients(kernel, call, tensors, kernel.load_triton()) for _ in range(REPEATS)]
    for again in others:
        pairs = zip(names(call), first, again, strict=True)
        moved = [name for name, one, other in pairs if not torch.equal(one, other)]
        assert not moved, f"these results move between equal calls, which is a race: {', '.join(moved)}"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["free_energy", "linear_exact", "selective_exact"])
@every_length
def test_values_that_jump_are_read_exactly(
    name: str, step: float, tokens: int, device: torch.device, record_property: Property
) -> None:
    """From −step to +step in the middle of the sequence, where a shift by the largest value so far would overflow."""
    record_property("kernel", name)
    [kernel] = [each for each in KERNELS if each.name == name]
    [call] = kernel.calls
    tensors = drawn(kernel, call, {}, tokens, torch.float32, device)
    inputs = [x.name for x in call.inputs]
    values = tensors[inputs.index("u" if "u" in inputs else "v")]
    late = torch.arange(tokens, device=device) >= tokens // 2
    values.add_(torch.where(late, step, -step).view(1, tokens, *[1] * (values.dim() - 2)))
    assert_right(kernel, call, tensors)


def test_a_planted_error_is_found(device: torch.device) -> None:
    [kernel] = [each for each in KERNELS if each.name == "scan"]
    [call] = kernel.calls
    tensors = drawn(kernel, call, {}, LENGTHS[-1], torch.float32, device)
    got = with_gradients(kernel, call, tensors, lambda *arguments: kernel.load_triton()(*arguments) * 1.001)
    wanted = with_gradients(kernel, call, [x.double() for x in tensors])
    with pytest.raises(AssertionError, match="results is off by"):
        assert_close("results", got[0], wanted[0], TOLERANCES[torch.float32])
