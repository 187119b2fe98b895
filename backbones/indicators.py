"""What an attention map looks like, in five figures a head (arXiv 2510.11602), and which mixers can show one.

A map `[B, H, T, T]` has a row a position: non-negative weights on the positions it sees. All figures are means over the
batch.
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
    """A mixer that can show its weights."""

    def attention_map(self, x_BTD: Tensor, context: Context = ...) -> Tensor:
        """`[B, H, T, T]`."""


@dataclass(frozen=True)
class Indicators:
    """Each `[H]`, but for `local_focus`, `[H, 4]`."""

    entropy: Tensor  # of a row, in nats; log T at most
    concentration: Tensor  # ‖A‖_F of the map; 1 when uniform and not causal, √T when every row has one weight
    diversity: Tensor  # 1 − mean cosine between this head's map and the others'; 0 with one head
    first_token_sink: Tensor  # weight on the first position, in rows behind it
    local_focus: (
        Tensor  # weight on the position 0, 1, 2, 3 before one's own, in the rows that have it; 0 where T is too short
    )

    def figures(self) -> Iterator[tuple[str, float]]:
        """(name, value) pairs: `entropy/head0`, …, `local_focus2/head3`."""
        for name in ("entropy", "concentration", "diversity", "first_token_sink"):
            yield from ((f"{name}/head{h}", float(value)) for h, value in enumerate(getattr(self, name)))
        for o in OFFSETS:
            yield from ((f"local_focus{o}/head{h}", float(value)) for h, value in enumerate(self.local_focus[:, o]))


def indicators(map_BHTT: Tensor) -> Indicators:
    """The figures of a map, in fp64."""
    a_BHTT = map_BHTT.detach().double()
    T = a_BHTT.shape[-1]
    diagonals = [
        a_BHTT.diagonal(-o, 2, 3).mean((0, 2)) if o < T else torch.zeros_like(a_BHTT[0, :, 0, 0]) for o in OFFSETS
    ]
    behind = a_BHTT[:, :, 1:, 0] if T > 1 else a_BHTT[:, :, :, 0]
    return Indicators(
        entropy=torch.special.entr(a_BHTT).sum(-1).mean((0, 2)),
        concentration=a_BHTT.square().sum((2, 3)).sqrt().mean(0),
        diversity=_diversity(a_BHTT),
        first_token_sink=behind.mean((0, 2)),
        local_focus=torch.stack(diagonals, -1),
    )


def _diversity(a_BHTT: Tensor) -> Tensor:
    flat_BHM = torch.nn.functional.normalize(a_BHTT.flatten(2), dim=-1)
    cosine_BHH = flat_BHM @ flat_BHM.transpose(1, 2)
    H = cosine_BHH.shape[-1]
    others_BH = cosine_BHH.sum(-1) - cosine_BHH.diagonal(0, 1, 2)
    return 1.0 - others_BH.mean(0) / (H - 1) if H > 1 else torch.zeros_like(others_BH[0])
