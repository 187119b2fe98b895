"""Canon layers as an option of the backbone (arXiv 2512.17351): the same short convolution for any mixer.

    A      x ← x + mixer(u + conv(u)),  u = norm(x)     before the mixer's projections
    C      x ← x + ffn(u + conv(u)),    u = norm(x)     before the feed-forward layer

Each has 4 taps per channel of the model width. Place A of the mixer `canon` is the same function. The paper's places B
and D are inside of a mixer and of a feed-forward layer, so a backbone cannot add them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.mixers.base import Cost
from backbones.mixers.priors.base import TAPS, uniform_taps_
from backbones.mixers.residual_convolution import residual_convolution, residual_convolution_step, without_padding
from backbones.options import CanonPlaces


class CanonLayers(nn.Module):
    """The short convolutions of one block, `x + conv(x)` over D channels each; the taps start uniform in ±½.

    Attributes:
        taps: `[J, D]` by place, that of the token itself first; empty where the block has no convolution.
    """

    def __init__(self, places: CanonPlaces, dim: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.taps = nn.ParameterDict({place: torch.empty(TAPS, dim) for place in "AC" if place in places})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the taps again from torch's global generator."""
        for taps_JD in self.taps.values():
            uniform_taps_(taps_JD)

    def forward(self, x_BTD: Tensor, place: str, mask_BT: Tensor | None = None) -> Tensor:
        """Whole sequences.

        Args:
            x_BTD: normalised hidden states, `[B, T, D]`.
            place: "A" or "C".
            mask_BT: `[B, T]`, True at real tokens; padding counts as zero.

        Returns:
            `[B, T, D]`; the inputs, where the block has no convolution at that place.
        """
        if place not in self.taps:
            return x_BTD
        return residual_convolution(without_padding(x_BTD, mask_BT), self.taps[place], self.causal)

    def init_state(self, batch: int) -> dict[str, Tensor]:
        """What decoding keeps: the inputs of the last 3 tokens.

        Args:
            batch: number of sequences, a constant row included.

        Returns:
            Zeros `[B, 3, D]` by place.
        """
        return {place: taps_JD.new_zeros(batch, TAPS - 1, taps_JD.shape[1]) for place, taps_JD in self.taps.items()}

    def step(self, x_BD: Tensor, place: str, past: dict[str, Tensor]) -> Tensor:
        """One token; equals `forward` at that position.

        Args:
            x_BD: the token's normalised hidden state, `[B, D]`.
            place: "A" or "C".
            past: from `init_state`; this token's input joins that of its place.

        Returns:
            `[B, D]`.
        """
        if place not in self.taps:
            return x_BD
        y_BD, past[place] = residual_convolution_step(x_BD, past[place], self.taps[place])
        return y_BD


def canon_cost(places: CanonPlaces, dim: int, causal: bool) -> Cost:
    """The cost of the convolutions of one layer.

    Args:
        places: where the layer has them.
        dim: model width D.
        causal: whether the taps see past tokens only.

    Returns:
        Parameters; FLOPs per token, 2 per tap and channel (7 taps where they act on both sides); bytes of decoding
        state.
    """
    channels = dim * sum(place in places for place in "AC")
    reached = TAPS if causal else 2 * TAPS - 1
    return Cost(TAPS * channels, 2 * reached * channels, 4 * (TAPS - 1) * channels if causal else 0)
