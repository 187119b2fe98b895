"""What a mixer is: a module from `x [B, T, D]` to `[B, T, D]` that tells its parameters, its FLOPs and its decoding
state.

Shape letters: B batch, T tokens, D model width, H heads, E value width (all heads), K query/key width a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from backbones.mixers.errors import MixerError


class MixerConfig(BaseModel):
    """Options of a mixer. Frozen; unknown keys are refused. Widths that are None are solved for the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    causal: bool = Field(default=True, description="a position sees itself and the past only")
    heads: int = Field(default=4, ge=1, description="number of heads")


@dataclass(frozen=True)
class Capabilities:
    """What a mixer can do and what it needs beside its input."""

    causal: bool = True
    bidirectional: bool = True
    mixes_tokens: bool = True
    constant_state: bool = False  # the decoding state does not grow with the length
    needs: frozenset[str] = frozenset()  # of {"embedding", "constant row"}
    fp64: bool = True  # computes in fp64 what is given in fp64; without it the contract compares in fp32
    pays_in_ffn: bool = False  # a control whose saving goes to the FFN: matched on the total only


@dataclass(frozen=True)
class Cost:
    """What one layer of a mixer costs at width D and length T.

    parameters: trainable ones. flops: forward FLOPs a token (2 a multiply-add) of the matrix products, reads and scans
    of the plain form over all T positions (a causal mask is not discounted). state_bytes: fp32 decoding state of one
    sequence after T tokens (0 where a mixer is not causal).
    """

    parameters: int
    flops: int
    state_bytes: int


@dataclass(frozen=True)
class Context:
    """What a layer may read beside its own input; usually nothing.

    mask_BT: True at real tokens; padded ones carry no weight and padding changes nothing (padding stands on the left).
    embedding_BTD: the embeddings at layer 0, positions added, normalised to rms 1; for mixers that need "embedding".
    constant_row: the batch's last row is the constant sequence, for mixers that need "constant row".
    """

    mask_BT: Tensor | None = None
    embedding_BTD: Tensor | None = None
    constant_row: bool = False


@dataclass
class State:
    """Decoding state of one layer: named tensors and the number of tokens seen."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    position: int = 0

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


class Mixer(nn.Module, ABC):
    """Base class of every mixer. Subclasses define `Config`, `capabilities`, `forward`, `candidates` and `cost`."""

    Config: ClassVar[type[MixerConfig]]
    capabilities: ClassVar[Capabilities] = Capabilities()
    paper: ClassVar[str] = ""  # "arXiv 2602.07160"
    summary: ClassVar[str] = ""  # one line for `suite list mixers`
    board_options: ClassVar[
        tuple[str, ...]
    ] = ()  # options that a board names even when the solver chose them: a verdict is about them
    board_note: ClassVar[str] = ""  # what a board says of every row of this mixer
    package: ClassVar[str] = ""  # the distribution whose code it wraps, where that is not the suite's own
    no_weight_decay: ClassVar[frozenset[str]] = frozenset(
        {"a_log", "w_beta"}
    )  # last parts of names: rates, not weights

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        """config: with widths solved (`size`). dim: D. length: the longest T that `forward` and `step` accept where it
        matters.
        """
        super().__init__()
        self.config, self.dim, self.length = config, dim, length

    @classmethod
    def obstacle(cls, device: torch.device | None = None) -> str:
        """Why the mixer cannot be built here or, given a device, cannot run on it: one line, empty where it can."""
        return ""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draws every parameter anew from torch's global generator."""

    @abstractmethod
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """`[B, T, D]` to `[B, T, D]`."""

    def require_causal(self) -> None:
        """For `init_state`: what sees the whole sequence can't be read token by token."""
        if not self.config.causal:
            raise MixerError(f"{type(self).__name__}: only a causal mixer decodes; build it with causal=true")

    def init_state(self, batch: int, max_len: int) -> State:
        """An empty decoding state for `batch` sequences of at most `max_len` tokens. Causal mixers define it."""
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        """One token, `[B, D]` to `[B, D]`; equals `forward` at that position. `context.embedding_BTD` has T = 1
        here.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    @classmethod
    @abstractmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[Self.Config]:  # type: ignore[name-defined]
        """The configs with all widths given that the budget solver may choose from; the preferred one of a tie
        first.
        """

    @classmethod
    def size(cls, config: MixerConfig, dim: int, length: int, budget: int) -> MixerConfig:
        """The candidate whose parameter count is nearest to `budget`. Widths that the user gave stay as they are."""
        candidates = list(cls.candidates(config, dim, length))
        if not candidates:
            raise MixerError(f"{cls.__name__} has no size at dim={dim} with {config.heads} heads; give fewer heads")
        return min(candidates, key=lambda c: abs(cls.cost(c, dim, length).parameters - budget))

    @staticmethod
    @abstractmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        """Analytic cost of a sized config; equals what is counted on the module."""
