"""What the tests of compiled steps of decoding share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.cpu.call import pytorch_only, recorded
from tests.tolerances import FP32, FP64

Change = Callable[[Tensor], Tensor]
#: A step of decoding, given what is done to its input; None where the compiled library does not take the call.
Step = Callable[[Change], Tensor | None]


def drawn(dtype: torch.dtype = torch.float64) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def error(got: Tensor | None, wanted: Tensor) -> float:
    """Relative to the largest entry."""
    assert got is not None
    assert got.shape == wanted.shape
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def allowed(dtype: torch.dtype) -> float:
    return FP64 if dtype == torch.float64 else 5 * FP32  # some steps of rounding in the state


def doubled(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(doubled(part) for part in x)
    return x.double() if isinstance(x, Tensor) else x


def doubled_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double().clone() for name, x in state.items()}


def broken(x: Tensor) -> Tensor:
    """With NaN in the first sequence."""
    y = x.clone()
    y[0] = float("nan")
    return y


def assert_takes_no_other_call(name: str, step: Step) -> None:
    """The compiled function of that name takes the step, and none that is watched or of other shapes or dtypes."""
    with recorded() as called:
        assert step(lambda x: x) is not None
    assert called == {name}
    refused: list[Change] = [
        lambda x: x.float(),
        lambda x: x.half(),
        lambda x: x.to("meta"),
        lambda x: x[..., :-1],
        lambda x: x[:1],
        lambda x: torch.nn.Parameter(x),
    ]
    with torch.enable_grad():
        assert all(step(change) is None for change in refused)
    with pytorch_only():
        assert step(lambda x: x) is None
