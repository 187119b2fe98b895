"""Types of a backbone's options. Configs are read without torch, so nothing here imports it."""

from __future__ import annotations

from typing import Literal

#: Where every layer has a short convolution: before the mixer's projections (A), before the feed-forward layer (C).
CanonPlaces = Literal["none", "A", "C", "AC"]
