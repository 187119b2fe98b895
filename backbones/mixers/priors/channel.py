"""Base class of priors whose weights differ by value channel: `aft` and `ssm`.

Both decode with a constant state. Without causality half of the channels scan forward and half from the end.
Shape letters: E channels of all heads, c copies of them that are read under the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backbones.mixers.priors.base import Prior, Widths, at_least_fp32

HIDDEN = -1e9  # logarithm of the weight of padding


class ChannelPrior(Prior):
    """Lays the channels of all heads side by side, `[B, T, c, E]`, and runs their scans in one or two directions."""

    fused_step = True
    grain = 1

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        self.ahead = widths.values if causal else widths.values - widths.values // 2

    def _flat(self, v_BTHw: Tensor) -> Tensor:
        copies = v_BTHw.shape[-1] // self.widths.value
        return at_least_fp32(v_BTHw).unflatten(-1, (copies, self.widths.value)).transpose(2, 3).flatten(3)

    def _heads(self, v_BTcE: Tensor) -> Tensor:
        return v_BTcE.unflatten(-1, (self.widths.heads, self.widths.value)).transpose(2, 3).flatten(3)

    def _by_direction(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        shared: list[Tensor],
        by_token: list[Tensor],
        by_channel: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        """`run(*shared, *by_token, *by_channel)`; where the prior is not causal, once per direction on half of the
        channels each.

        shared: `[B, T, …]` without channels; by_token: `[B, T, …, E]`; by_channel: `[…, E]`.
        """
        if self.causal:
            return run(*shared, *by_token, *by_channel)
        first, second = slice(0, self.ahead), slice(self.ahead, None)
        ahead = run(*shared, *(x[..., first] for x in by_token), *(x[..., first] for x in by_channel))
        flipped = [x.flip(1) for x in (*shared, *(x[..., second] for x in by_token))]
        back = run(*flipped, *(x[..., second] for x in by_channel))
        return tuple(torch.cat((one, other.flip(1)), dim=-1) for one, other in zip(ahead, back, strict=True))

    def log_read(self, weights: object, u_BTHw: Tensor) -> Tensor:
        parts = u_BTHw.split(self.widths.value, dim=-1)
        return torch.cat([self.free_energy(weights, u, u.new_ones(u.shape[2:]))[1] for u in parts], dim=-1)


def masked(mask_BT: Tensor | None, v_BTHw: Tensor) -> Tensor:
    """Values with zeros at padded tokens."""
    return v_BTHw if mask_BT is None else v_BTHw.masked_fill(~mask_BT[:, :, None, None], 0.0)
