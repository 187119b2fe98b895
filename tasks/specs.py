"""The inputs that a backbone reads and the outputs that it gives, by kind of input. B: batch, T: tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadName = Literal["point", "student-t", "quantile"]


@dataclass(frozen=True)
class TextInput:
    """Token ids `[B, T]` in `[0, vocab)`, T ≤ length; logits `[B, T, vocab]`. Causal."""

    vocab: int
    length: int
    kind: Literal["text"] = "text"
    causal: bool = True


@dataclass(frozen=True)
class ImageInput:
    """Images `[B, channels, height, width]`, float, normalised; logits `[B, classes]`. `patch` is the patch side in
    pixels.
    """

    channels: int
    height: int
    width: int
    patch: int
    classes: int
    kind: Literal["image"] = "image"
    causal: bool = False


@dataclass(frozen=True)
class SeriesInput:
    """Windows `[B, look_back, channels]`, standardised; forecasts `[B, horizon, channels]`, or
    `[B, horizon, channels, outputs]` where `outputs` is more than 1.

    head: a point; nine quantiles, 0.1 to 0.9; or a Student-t's location, scale > 0 and degrees of freedom > 2.
    """

    channels: int
    look_back: int
    horizon: int
    patch: int
    stride: int
    season: int = 0  # steps per day, or per week for daily data; 0 where unknown
    head: HeadName = "point"
    kind: Literal["series"] = "series"
    causal: bool = False

    @property
    def outputs(self) -> int:
        """Values that describe the forecast of one step of one channel."""
        return {"point": 1, "quantile": 9, "student-t": 3}[self.head]


InputSpec = TextInput | ImageInput | SeriesInput
