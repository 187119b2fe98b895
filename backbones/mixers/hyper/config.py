"""The options of HyperMLP and HyperGLU (arXiv 2602.12601)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from backbones.mixers.base import MixerConfig
from kernels.cpu.sizes import SIZES

MAX_RANK = SIZES.max_rank


class HyperConfig(MixerConfig):
    """Switches and widths of HyperMLP and HyperGLU. What is off has no parameters."""

    heads: int = Field(default=2, ge=1, description="number of heads")
    rank: int | None = Field(
        default=None, ge=1, le=MAX_RANK, description="rank r of the temporal mixing; solved when not given"
    )
    d_qk: int | None = Field(default=None, ge=1, description="query/key width of all heads; solved when not given")
    lag_layout: bool = Field(
        default=True, description="tables indexed by lag or offset (off: by position from the start)"
    )
    mixing: Literal["both", "R1", "R2"] = Field(
        default="both", description="mixing before the activation (R1), after it (R2), or both"
    )
    convolution: bool = Field(default=True, description="short depthwise convolution before keys and values")
    gates: bool = Field(
        default=True, description="diagonals that depend on x: of the scores, the output and the mixing (off: 1)"
    )
