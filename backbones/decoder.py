"""The text backbone: token embedding, causal trunk, linear head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backbones.base import Trunk, TrunkConfig
from backbones.mixers.base import State


class Decoder(nn.Module):
    """Token ids `[B, T]` to logits `[B, T, vocab]`. Embedding and head are separate matrices, outside the budget."""

    constant: Tensor

    def __init__(self, trunk: TrunkConfig, vocab: int, embedding_std: float = 0.02) -> None:
        super().__init__()
        self.embedding_std = embedding_std
        self.embedding = nn.Embedding(vocab, trunk.dim)
        self.trunk = Trunk(trunk)
        self.head = nn.Linear(trunk.dim, vocab, bias=False)
        if self.trunk.takes_constant_row:
            self.register_buffer("constant", torch.zeros(trunk.length, dtype=torch.long))

    def set_constant(self, ids_T: Tensor) -> None:
        """Sets the constant sequence of the layers that need one; it is saved in the state dict."""
        self.constant.copy_(ids_T)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.embedding.weight, std=self.embedding_std)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(self.head.in_features))
        self.trunk.reset_parameters()

    def forward(self, ids_BT: Tensor) -> Tensor:
        constant_TD = self.embedding(self.constant) if self.trunk.takes_constant_row else None
        return self.head(self.trunk(self.embedding(ids_BT), constant_TD))

    def init_state(self, batch: int, max_len: int) -> list[State]:
        return self.trunk.init_state(batch, max_len)

    def step(self, ids_B: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        """One token id per sequence, `[B]`, to logits `[B, vocab]`; equals `forward` at that position."""
        constant_D = self.embedding(self.constant[states[0].position]) if self.trunk.takes_constant_row else None
        hidden_BD, states = self.trunk.step(self.embedding(ids_B), states, constant_D)
        return self.head(hidden_BD), states
