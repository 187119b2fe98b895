"""How every Triton kernel here is started, on a GPU, under the interpreter, or only compiled.

Kernels take contiguous tensors. `launch` runs one; inside `recording()` it runs nothing and keeps what would have been
started, so that the ahead-of-time compiler (`kernels.tools.ahead_of_time`) sees the signatures, constants and
configurations of real calls on meta tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

Target = Literal["sm_80", "sm_90", "sm_100", "gfx942"]


@dataclass(frozen=True)
class Config:
    """Tile sizes, by the name of the kernel's constant, and how the compiler is to lay it out."""

    tiles: tuple[tuple[str, int], ...]
    warps: int = 4
    stages: int = 2

    @classmethod
    def of(cls, warps: int, stages: int, **tiles: int) -> Config:
        return cls(tuple(tiles.items()), warps, stages)

    def __getitem__(self, name: str) -> int:
        return dict(self.tiles)[name]


@dataclass(frozen=True)
class Launch:
    """A start that was recorded instead of made."""

    kernel: Any
    arguments: dict[str, Any]
    config: Config


_recorded: list[Launch] | None = None
_target: Target | None = None
_chosen: dict[tuple[Any, ...], Config] = {}


@contextmanager
def recording(target: Target) -> Iterator[list[Launch]]:
    """Launches are kept in the list, configured as for `target`."""
    global _recorded, _target
    before = _recorded, _target
    _recorded, _target = [], target
    try:
        yield _recorded
    finally:
        _recorded, _target = before


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def target() -> Target:
    """What the current device is; the interpreter passes for sm_90."""
    if _target is not None:
        return _target
    if interpreted():
        return "sm_90"
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability()[0]
    return "sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"


def dot_precision(dtype: torch.dtype) -> str:
    """Of products of fp32 operands: three tf32 products, about as exact; one where PyTorch's setting allows. AMD has
    fp32 units.
    """
    if dtype != torch.float32 or target() == "gfx942":
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def launch(kernel: Any, grid: tuple[int, ...], config: Config, **arguments: Any) -> None:
    arguments |= dict(config.tiles)
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, config))
    elif all(grid):
        kernel[grid](**arguments, num_warps=config.warps, num_stages=config.stages)


def tuned(key: tuple[Any, ...], candidates: Sequence[Config], run: Callable[[Config], None]) -> Config:
    """The fastest of the listed candidates for `key`, timed once on the call's own tensors, which `run` may do any
    number of times.
    """
    if len(candidates) == 1 or _recorded is not None or interpreted():
        return candidates[0]
    if key not in _chosen:
        _chosen[key] = min(candidates, key=lambda config: _milliseconds(lambda: run(config)))
    return _chosen[key]


def _milliseconds(run: Callable[[], None]) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, warmup=5, rep=20))


def padded(width: int) -> int:
    """A tile as wide: a power of two, and no less than a matrix product takes."""
    return max(16, 1 << (width - 1).bit_length())


def blocks(count: int, size: int) -> int:
    return -(-count // size)


def split(x_Hw: Tensor, pieces: int, fill: float = 0.0) -> Tensor:
    """Heads' channels in equal pieces, each a head: `[…, H, w]` to `[…, H·pieces, ⌈w/pieces⌉]`."""
    if pieces == 1:
        return x_Hw
    spare = -x_Hw.shape[-1] % pieces
    return pad(x_Hw, (0, spare), value=fill).unflatten(-1, (pieces, -1)).flatten(-3, -2)


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)
