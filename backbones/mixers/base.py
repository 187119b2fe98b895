"""The mixer: a module from `x [B, T, D]` to `[B, T, D]` that states its parameters, its FLOPs and its decoding state.

Shape letters: B batch, T tokens, D model width, H heads, E value width of all heads, K query/key width per head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from backbones.mixers.config import MixerConfig as MixerConfig
from backbones.mixers.errors import MixerError


@dataclass(frozen=True)
class Capabilities:
    """What a mixer can do, and what it reads besides its input.

    Attributes:
        causal: whether there is a causal variant, which decodes.
        bidirectional: whether there is a variant in which every position sees the whole sequence.
        mixes_tokens: whether an output depends on other positions than its own.
        constant_state: whether the decoding state does not grow with the length.
        needs: any of "embedding" and "constant row", see `Context`.
        fp64: whether fp64 inputs are computed in fp64; without it the contract compares in fp32.
        pays_in_ffn: whether the mixer is a control whose savings go to the feed-forward layer, so that only the total
            is matched.
    """

    causal: bool = True
    bidirectional: bool = True
    mixes_tokens: bool = True
    constant_state: bool = False
    needs: frozenset[str] = frozenset()
    fp64: bool = True
    pays_in_ffn: bool = False


@dataclass(frozen=True)
class Cost:
    """The cost of one layer of a mixer at width D and length T.

    Attributes:
        parameters: number of parameters, trainable or frozen, and of entries of persistent buffers.
        flops: forward FLOPs per token, 2 per multiply-add, of the matrix products, reads and scans of the naive
            reference implementation over all T positions; a causal mask is not discounted.
        state_bytes: fp32 decoding state of one sequence after T tokens; 0 where the mixer is not causal.
    """

    parameters: int
    flops: int
    state_bytes: int


@dataclass(frozen=True)
class Context:
    """What a layer may read besides its own input; usually nothing.

    Attributes:
        mask_BT: `[B, T]`, True at real tokens. Padding is on the left, has no weight and changes nothing.
        embedding_BTD: the embeddings at layer 0 `[B, T, D]`, positions added, normalised to rms 1, for mixers that need
            "embedding".
        constant_row: whether the batch's last row is the constant sequence, for mixers that need "constant row".
    """

    mask_BT: Tensor | None = None
    embedding_BTD: Tensor | None = None
    constant_row: bool = False


@dataclass
class State:
    """Decoding state of one layer: named tensors, and the number of tokens seen."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    position: int = 0

    def bytes(self) -> int:
        """Memory of the tensors.

        Returns:
            Bytes of the whole batch.
        """
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


class Mixer(nn.Module, ABC):
    """Base class of every mixer.

    Subclasses define `Config`, `capabilities`, `reset_parameters`, `forward`, `candidates` and `cost`; causal ones also
    `init_state` and `step`. A method `plain_forward(x_BTD, context)` is optional: a naive reference implementation that
    the contract compares `forward` and `cost` with.

    Attributes:
        Config: the class of its options.
        capabilities: what it can do and what it needs.
        paper: source, such as "arXiv 2602.07160".
        summary: one line for `suite list mixers`.
        board_options: options that a board shows even where the solver chose them.
        board_note: a remark that a board shows in every row of this mixer.
        package: the distribution whose code it wraps, where that is not the suite's own.
        layer_index: the place in its backbone, from 0, for the few whose form depends on it; a backbone sets it.
        version: to raise when the same options come to compute something else: records of earlier versions then have
            rows of their own.
        no_weight_decay: last parts of the names of parameters that weight decay leaves alone: rates, not weights.
    """

    Config: ClassVar[type[MixerConfig]]
    capabilities: ClassVar[Capabilities] = Capabilities()
    paper: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    board_options: ClassVar[tuple[str, ...]] = ()
    board_note: ClassVar[str] = ""
    package: ClassVar[str] = ""
    layer_index: int = 0
    version: ClassVar[int] = 1
    no_weight_decay: ClassVar[frozenset[str]] = frozenset({"a_log", "w_beta"})

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        """Builds the module on torch's default device.

        Args:
            config: options with all widths set (`size` solves them).
            dim: model width D.
            length: the longest T that `forward` and `step` have to accept.
        """
        super().__init__()
        self.config, self.dim, self.length = config, dim, length

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """`torch.nn.Module` calls this in place of `forward` while `torch.jit.trace` records."""
        raise MixerError(
            f"{type(self).__name__}: torch.jit.trace records one length and one choice of implementation as constants; "
            "use torch.export.export instead"
        )

    @classmethod
    def obstacle(cls, device: torch.device | None = None) -> str:
        """Why the mixer cannot be used on this machine.

        Args:
            device: where it would run; None for building it only.

        Returns:
            One line, empty where nothing prevents it.
        """
        return ""

    @classmethod
    def idle_options(cls, config: MixerConfig) -> Mapping[str, str]:
        """Options that change nothing, given the others: commands refuse them, so that no two rows of a board are the
        same model.

        Args:
            config: all options.

        Returns:
            By name, why it changes nothing: a phrase.
        """
        return {}

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draws every parameter again from torch's global generator."""

    @abstractmethod
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        """Mixes the tokens of each row.

        Args:
            x_BTD: normalised input, `[B, T, D]`.
            context: mask, embeddings and constant row, as far as the mixer needs them.

        Returns:
            `[B, T, D]`, without the residual connection; unspecified but finite at padded positions.
        """

    def require_causal(self) -> None:
        """For `init_state`: a layer that sees the whole sequence cannot be read token by token.

        Raises:
            MixerError: where the layer is not causal.
        """
        if not self.config.causal:
            raise MixerError(f"{type(self).__name__}: only a causal mixer decodes; build it with causal=true")

    def init_state(self, batch: int, max_len: int) -> State:
        """An empty decoding state. Causal mixers define it.

        Args:
            batch: number of sequences, a constant row included.
            max_len: the longest sequence, in tokens.

        Returns:
            The state before the first token, on the device of the parameters. Caches of tokens have the parameters'
            dtype; running sums and means are in fp32 at least, as half precision would lose what each token adds.

        Raises:
            MixerError: where the layer is not causal.
            NotImplementedError: where the mixer does not decode.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        """One token; equals `forward` at that position. Causal mixers define it.

        Args:
            x_BD: normalised input of one token, `[B, D]`.
            state: from `init_state` or the previous call; its tensors may be written in place.
            context: as in `forward`, with T = 1 for the embeddings.

        Returns:
            The output `[B, D]` and the next state.

        Raises:
            NotImplementedError: where the mixer does not decode.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    @classmethod
    @abstractmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[Self.Config]:  # type: ignore[name-defined]
        """The sizes that the budget solver chooses from.

        Args:
            config: the requested options; widths that are set stay as they are.
            dim: model width D.
            length: the longest sequence T.

        Returns:
            Configs with all widths set, the preferred one of equally near sizes first.
        """

    @classmethod
    def size(cls, config: MixerConfig, dim: int, length: int, budget: int) -> MixerConfig:
        """The candidate whose parameter count is nearest to the budget.

        Args:
            config: the requested options; widths that are set stay as they are.
            dim: model width D.
            length: the longest sequence T.
            budget: trainable parameters of the layer.

        Returns:
            The config with all widths set.

        Raises:
            MixerError: where there is no candidate.
        """
        candidates = list(cls.candidates(config, dim, length))
        if not candidates:
            raise MixerError(f"{cls.__name__} has no size at dim={dim} with {config.heads} heads; give fewer heads")
        return min(candidates, key=lambda c: abs(cls.cost(c, dim, length).parameters - budget))

    @staticmethod
    @abstractmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        """The cost by formulas; it equals what is counted on the module.

        Args:
            config: options with all widths set.
            dim: model width D.
            length: tokens T.

        Returns:
            Parameters, FLOPs per token, and bytes of decoding state.
        """
