"""How every Triton kernel is started: on a GPU, in the interpreter, or only to be compiled.

Kernels take contiguous tensors. `launch` runs one; inside `recording()` it runs nothing and records the launch, so that
the ahead-of-time compiler (`kernels.tools.ahead_of_time`) gets the signatures, constants and configurations of real
calls on meta tensors.
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
    """Tile sizes, by the name of the kernel's constant, and options of the compiler."""

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
    """A launch that was recorded instead of run."""

    kernel: Any
    arguments: dict[str, Any]
    config: Config


_recorded: list[Launch] | None = None
_target: Target | None = None
_chosen: dict[tuple[Any, ...], Config] = {}


@contextmanager
def recording(target: Target) -> Iterator[list[Launch]]:
    """Launches are added to the list, configured for `target`, instead of run."""
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
    """The current device; in the interpreter sm_90."""
    if _target is not None:
        return _target
    if interpreted():
        return "sm_90"
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability()[0]
    return "sm_100" if major >= 10 else "sm_90" if major == 9 else "sm_80"


def dot_precision(dtype: torch.dtype) -> str:
    """How fp32 operands are multiplied: three tf32 products, about as exact, or one if PyTorch's setting allows it.

    AMD has matrix units for fp32.
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
    """The fastest of the candidates for `key`, timed once on the tensors of the call by repeating `run`.

    The first where PyTorch is to be deterministic: tiles decide the order of sums, and times vary.
    """
    fixed = torch.are_deterministic_algorithms_enabled()
    if len(candidates) == 1 or _recorded is not None or interpreted() or fixed:
        return candidates[0]
    if key not in _chosen:
        _chosen[key] = min(candidates, key=lambda config: _milliseconds(lambda: run(config)))
    return _chosen[key]


def _milliseconds(run: Callable[[], None]) -> float:
    from triton.testing import do_bench

    return float(do_bench(run, warmup=5, rep=20))


def padded(width: int) -> int:
    """Width of a tile for `width` channels: a power of two, at least the smallest that a matrix product takes."""
    return max(16, 1 << (width - 1).bit_length())


def blocks(count: int, size: int) -> int:
    return -(-count // size)


def split(x_Hw: Tensor, pieces: int, fill: float = 0.0) -> Tensor:
    """Splits the channels of every head into equal pieces, each a head: `[…, H, w]` to `[…, H·pieces, ⌈w/pieces⌉]`."""
    if pieces == 1:
        return x_Hw
    spare = -x_Hw.shape[-1] % pieces
    return pad(x_Hw, (0, spare), value=fill).unflatten(-1, (pieces, -1)).flatten(-3, -2)


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)
