"""The text backbone: token embedding, causal trunk, linear head."""

from __future__ import annotations

import math

from torch import Tensor, nn

from backbones.base import Trunk, TrunkConfig


class Decoder(nn.Module):
    """Token ids `[B, T]` to logits `[B, T, vocab]`. The embedding and the head are separate matrices, outside the budget."""

    def __init__(self, trunk: TrunkConfig, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, trunk.dim)
        self.trunk = Trunk(trunk)
        self.head = nn.Linear(trunk.dim, vocab, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(self.head.in_features))
        self.trunk.reset_parameters()

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.trunk(self.embedding(ids_BT)))
