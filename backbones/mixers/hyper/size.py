"""The widths of HyperMLP and HyperGLU for a budget, or a refusal with both counts.

Their tables have the length of the task, so the parameters of temporal mixing depend on it; narrower queries and keys
make up for them. The largest rank that leaves d_qk ≥ D/8 is chosen, then the d_qk nearest to the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backbones.mixers.base import Cost
from backbones.mixers.errors import MixerError
from backbones.mixers.hyper.config import HyperConfig

WIDTHS_TRIED = range(32, 16_385, 32)  # of D, for the advice in a refusal


class Sizable(Protocol):
    """What the solver needs of a mixer's class."""

    name: str

    def qk_widths(self, config: HyperConfig, dim: int) -> Sequence[int]: ...
    def least_width(self, config: HyperConfig, dim: int, part: int) -> int: ...
    def ranks(self, config: HyperConfig) -> Sequence[int]: ...
    def cost(self, config: HyperConfig, dim: int, length: int) -> Cost: ...


def solve(cls: Sizable, config: HyperConfig, dim: int, length: int, budget: int) -> HyperConfig:
    """The solved config. Raises MixerError where rank 1 and d_qk = D/16 (or the given ones) are over the budget."""
    if config.rank is not None and config.d_qk is not None:
        return config
    widths, wide = cls.qk_widths(config, dim), cls.least_width(config, dim, 8)

    def sized(rank: int, d_qk: int) -> HyperConfig:
        return config.model_copy(update={"rank": rank, "d_qk": d_qk})

    def over(rank: int, d_qk: int) -> int:
        return cls.cost(sized(rank, d_qk), dim, length).parameters - budget

    if over(min(cls.ranks(config)), min(widths)) > 0:
        raise MixerError(_refusal(cls, config, dim, length, budget))
    if config.d_qk is not None:
        return sized(min(cls.ranks(config), key=lambda r: abs(over(r, widths[0]))), widths[0])
    rank = next((r for r in cls.ranks(config) if over(r, wide) <= 0), None)
    if rank is None:  # not even the smallest rank leaves D/8
        rank, wide = min(cls.ranks(config)), min(widths)
    return sized(rank, min((d for d in widths if d >= wide), key=lambda d: abs(over(rank, d))))


def _refusal(cls: Sizable, config: HyperConfig, dim: int, length: int, budget: int) -> str:
    allowed = budget / dim**2

    def least(dim: int, length: int) -> float:
        smallest = config.model_copy(
            update={"rank": config.rank or 1, "d_qk": config.d_qk or cls.least_width(config, dim, 16)}
        )
        return cls.cost(smallest, dim, length).parameters / dim**2

    wider = next((d for d in WIDTHS_TRIED if d > dim and d % config.heads == 0 and least(d, length) <= allowed), None)
    shorter = next((n for n in range(length - 1, 0, -1) if least(dim, n) <= allowed), None)
    fits = ([f"from D={wider}"] if wider else []) + ([f"L ≤ {shorter}"] if shorter else [])
    advice = f"fits {', or '.join(fits)}" if fits else "no width or length fits"
    needs = f"{cls.name} at D={dim}, L={length} needs at least {least(dim, length):.2f} D² per layer"
    return f"budget: {needs}, the reference has {allowed:.2f}; {advice}"
