"""Training memory of mixers with a constant state: linear in the length, and never a state per token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.mixers import registry
from backbones.mixers.base import Mixer

BUILT_IN = {name: registry.get(name).capabilities for name in registry.names() if registry.origin(name) == "built-in"}
LINEAR = [name for name, can in BUILT_IN.items() if can.constant_state and can.mixes_tokens]
FEW_ROWS = ("aft", "fem-aft", "query-free")  # their states are a few rows
FAST = ("simple-gla", "gla", "ssm", "fem-linear")  # one of each scan; the slow tests measure all mixers


class Largest(TorchDispatchMode):
    """The largest number of elements in the storage of any operation's result."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def built(name: str, causal: bool, tokens: int, dim: int, heads: int) -> Mixer:
    cls = registry.get(name)
    return cls(cls.size(cls.Config(causal=causal, heads=heads), dim, tokens, 4 * dim * dim), dim, tokens)


def held(name: str, causal: bool, tokens: int, dim: int = 32, heads: int = 4, size: float = 1.0) -> tuple[int, int]:
    """(elements saved for backward, elements of the largest tensor)."""
    mixer = built(name, causal, tokens, dim, heads)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    x_BTD = (size * torch.randn(1, tokens, dim)).requires_grad_()
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mixer(x_BTD).square().mean().backward()
    return sum(kept.values()), largest.numbers


def test_the_measurement_detects_a_map_of_all_positions() -> None:
    """Explicit attention weights take the square of the length."""
    scores = torch.randn(300, 8, requires_grad=True)
    with Largest() as largest:
        (scores @ scores.T).softmax(-1).sum().backward()
    assert largest.numbers == 300 * 300


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
@pytest.mark.parametrize("name", LINEAR)
def test_memory_grows_no_faster_than_the_length(name: str, causal: bool) -> None:
    (kept, largest), (twice_kept, twice_largest) = held(name, causal, 512), held(name, causal, 1024)
    assert twice_kept <= 2.05 * kept
    assert twice_largest <= 2.05 * largest


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in LINEAR if n not in FEW_ROWS],
)
def test_no_operation_allocates_a_state_per_token(name: str) -> None:
    """Not even the state of one head: d_k × d_v numbers, or 16 per channel of a selective state space."""
    widths = getattr(built(name, True, 256, dim=128, heads=2), "widths", None)
    one_head = (widths.key or 16 * widths.heads) * widths.value if widths else 64 * 64
    for size in (1.0, 1e3):  # the second leaves the ordinary range of values
        _, largest = held(name, True, 256, dim=128, heads=2, size=size)
        assert largest < 256 * one_head, (size, largest / 256, one_head)
