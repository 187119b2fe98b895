"""Five indicators per head that summarise an attention map (arXiv 2510.11602), and the mixers that have a map.

A map `[B, H, T, T]` has one row per position: non-negative weights on the positions it sees. All indicators are means
over the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from backbones.mixers.base import Context

OFFSETS = (0, 1, 2, 3)


@runtime_checkable
class ShowsMap(Protocol):
    """A mixer that has an attention map."""

    def attention_map(self, x_BTD: Tensor, context: Context = ...) -> Tensor:
        """The weights `[B, H, T, T]` of every position (rows) on every other."""


@dataclass(frozen=True)
class Indicators:
    """The indicators of a map, one value per head.

    Attributes:
        entropy: mean entropy of the rows in nats, at most log T, `[H]`.
        concentration: ‖A‖_F of the map, `[H]`; 1 when uniform and not causal, √T when every row has one weight.
        diversity: 1 − mean cosine between this head's map and the others', `[H]`; 0 with one head.
        first_token_sink: mean weight on the first position in all later rows, `[H]`.
        local_focus: mean weight on the position 0, 1, 2, 3 steps back, in the rows that have it, `[H, 4]`; 0 where T is
            too short.
    """

    entropy: Tensor
    concentration: Tensor
    diversity: Tensor
    first_token_sink: Tensor
    local_focus: Tensor

    def figures(self) -> Iterator[tuple[str, float]]:
        """(name, value) pairs: `entropy/head0`, …, `local_focus2/head3`."""
        for name in ("entropy", "concentration", "diversity", "first_token_sink"):
            yield from ((f"{name}/head{h}", float(value)) for h, value in enumerate(getattr(self, name)))
        for o in OFFSETS:
            yield from ((f"local_focus{o}/head{h}", float(value)) for h, value in enumerate(self.local_focus[:, o]))


def indicators(map_BHTT: Tensor) -> Indicators:
    """The indicators of a map `[B, H, T, T]`, computed in fp64."""
    a_BHTT = map_BHTT.detach().double()
    T = a_BHTT.shape[-1]
    diagonals = [
        a_BHTT.diagonal(-o, 2, 3).mean((0, 2)) if o < T else torch.zeros_like(a_BHTT[0, :, 0, 0]) for o in OFFSETS
    ]
    on_first_BHT = a_BHTT[:, :, 1:, 0] if T > 1 else a_BHTT[:, :, :, 0]
    return Indicators(
        entropy=torch.special.entr(a_BHTT).sum(-1).mean((0, 2)),
        concentration=a_BHTT.square().sum((2, 3)).sqrt().mean(0),
        diversity=_diversity(a_BHTT),
        first_token_sink=on_first_BHT.mean((0, 2)),
        local_focus=torch.stack(diagonals, -1),
    )


def _diversity(a_BHTT: Tensor) -> Tensor:
    flat_BHM = torch.nn.functional.normalize(a_BHTT.flatten(2), dim=-1)
    cosine_BHH = flat_BHM @ flat_BHM.transpose(1, 2)
    H = cosine_BHH.shape[-1]
    others_BH = cosine_BHH.sum(-1) - cosine_BHH.diagonal(0, 1, 2)
    return 1.0 - others_BH.mean(0) / (H - 1) if H > 1 else torch.zeros_like(others_BH[0])
