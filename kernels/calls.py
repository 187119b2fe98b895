"""How a kernel is called: its tensor arguments by letter, random ones for tests, and sizes to compile for.

`kernels.registry` lists the calls of every kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

#: What an entry of an input certainly changes: its own token's results, those of later tokens too, or those of every
#: sequence from its place on.
Reach = Literal["row", "later", "all"]
#: From normally distributed numbers to numbers that the kernel takes.
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "positive": torch.abs,
    "negative": lambda x: -x.abs(),
    "unit": torch.sigmoid,
    "small": lambda x: x / 4,
    "above_one": lambda x: 1 + x.abs(),
}
#: Sizes in small calls: B sequences, T tokens, H heads, k and w channels per head, D and E channels, N states,
#: c inputs, s score sets, r rank, F inner width and U = 2F, C channels of all projections.
SMALL = {
    "B": 2, "T": 70, "H": 2, "k": 4, "w": 6, "D": 8, "E": 5, "N": 3, "c": 1, "s": 1, "r": 2, "F": 5, "U": 10, "C": 7
}  # fmt: skip
#: Sizes of the letters in calls that are compiled ahead of time.
ON_GPU = {"B": 2, "T": 1024, "H": 8}


@dataclass(frozen=True)
class Input:
    """One tensor argument: a letter for each dimension (1 is one), its reach, and a name of `VALUES` or ""."""

    name: str
    dims: str
    reach: Reach
    values: str = ""

    @classmethod
    def parse(cls, text: str) -> Input:
        """From "name dims reach" or "name dims reach values"."""
        name, dims, reach, *values = text.split()
        assert reach in get_args(Reach), text
        return cls(name, dims, reach, *values)  # type: ignore[arg-type]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(1 if letter == "1" else sizes[letter] for letter in self.dims)


@dataclass(frozen=True)
class OnGpu:
    """Sizes and dtype for which a call is compiled ahead of time."""

    name: str
    sizes: Mapping[str, int]
    dtype: torch.dtype = torch.float32


def _unchanged(*tensors: Tensor) -> tuple[Any, ...]:
    return tensors


@dataclass(frozen=True)
class Call:
    """One way to call a kernel: its tensors ("name dims reach values, …") and the arguments made of them."""

    name: str
    tensors: str
    arguments: Callable[..., tuple[Any, ...]] = _unchanged
    sizes: Mapping[str, int] = field(default_factory=dict)
    on_gpu: tuple[OnGpu, ...] = ()

    @property
    def inputs(self) -> list[Input]:
        return [Input.parse(text) for text in self.tensors.split(",")]

    def draw(self, dtype: torch.dtype = torch.float64, **sizes: int) -> list[Tensor]:
        """Random tensors of small sizes, the same in every call."""
        made = []
        for seed, x in enumerate(self.inputs):
            generator = torch.Generator().manual_seed(seed)
            normal = torch.randn(x.shape({**SMALL, **self.sizes, **sizes}), generator=generator, dtype=torch.float64)
            made.append(VALUES[x.values](normal).to(dtype) if x.values else normal.to(dtype))
        return made

    def on_meta(self, shape: OnGpu) -> list[Tensor]:
        """Tensors without memory, of the sizes that are compiled ahead of time."""
        sizes = {**SMALL, **self.sizes, **ON_GPU, **shape.sizes}
        empty = partial(torch.empty, device="meta", dtype=shape.dtype, requires_grad=True)
        return [empty(x.shape(sizes)) for x in self.inputs]
