"""Comparing the results of an interpreted kernel with fp64."""

from __future__ import annotations

from torch import Tensor


def assert_close(name: str, got: Tensor, wanted: Tensor, fraction: float, least: float = 0.0) -> None:
    """Everything is finite, and differences are at most a fraction of the largest entry, of `least` or of 0.01."""
    assert bool(got.isfinite().all()), f"{name} is not finite"
    error, size = float((got.double() - wanted).detach().abs().max()), float(wanted.detach().abs().max())
    assert error <= fraction * max(size, least, 1e-2), f"{name} is off by {error:.3g}; its largest entry is {size:.3g}"
