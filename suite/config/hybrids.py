"""Hybrid layouts: which layers of a backbone keep softmax (arXiv 2510.11602, table of hybrids), counted from 1."""

from __future__ import annotations

from collections.abc import Callable

from suite.errors import UserError, did_you_mean
from suite.safe_text import quoted

LAYOUTS: dict[str, Callable[[int], set[int]]] = {
    "even": lambda n: set(range(2, n + 1, 2)),
    "odd": lambda n: set(range(1, n + 1, 2)),
    "top": lambda n: set(range(1, n // 2 + 1)),
    "bottom": lambda n: set(range(n // 2 + 1, n + 1)),
    "middle": lambda n: {i for i in range(1, n + 1) if i <= n // 4 or i > n - n // 4},
    "quarter": lambda n: set(range(4, n + 1, 4)),
    "first": lambda n: {1},
    "last": lambda n: {n},
    "bilateral": lambda n: {1, n},
}


def resolve_hybrid(layout: str, depth: int) -> tuple[int, ...]:
    """The layers that keep softmax under a named layout, or under a list such as `2,4`. Raises UserError."""
    if layout in LAYOUTS:
        return _useful(layout, LAYOUTS[layout](depth), depth)
    if not layout.replace(",", "").isdecimal():
        near = did_you_mean(layout, LAYOUTS)
        raise UserError(
            f"unknown hybrid layout {quoted(layout)}{near} (allowed: {', '.join(LAYOUTS)}, or layers such as 2,4)"
        )
    layers = {int(part[:9]) for part in layout.split(",") if part}  # no backbone has a billion layers
    if not layers <= set(range(1, depth + 1)):
        raise UserError(f"hybrid layers {quoted(layout)}: this backbone has layers 1 to {depth}")
    return _useful(layout, layers, depth)


def _useful(layout: str, layers: set[int], depth: int) -> tuple[int, ...]:
    """The softmax layers of a hybrid, some but not all: anything else would have a misleading name on a board."""
    kept = sorted(layers & set(range(1, depth + 1)))
    if not kept or len(kept) == depth:
        what = "no layer" if not kept else "every layer"
        raise UserError(
            f"hybrid {quoted(layout)} keeps softmax in {what} of {depth}; choose another layout, or --set model.depth=…"
        )
    return tuple(kept)
