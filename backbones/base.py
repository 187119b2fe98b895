"""The trunk that all backbones share: pre-norm blocks of a mixer and a SwiGLU.

Each layer has its own mixer. Positions are learned and absolute, for every mixer; rotary ones belong to the mixers.

Shape letters: B batch, T tokens, D model width, F feed-forward width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.canon import CanonLayers
from backbones.mixers.base import Context, Mixer, MixerConfig, State
from backbones.options import CanonPlaces
from kernels.rows import feed_forward, rms_norm, swiglu

NORM_EPS = 1e-6
CANON = "canon_BJD_"  # with the place: what a block's short convolutions keep in its decoding state


@dataclass(frozen=True)
class Layer:
    """One layer: the mixer's class, its config with all widths set, the feed-forward width F, and where short
    convolutions are added to the inputs of the two.
    """

    mixer: type[Mixer]
    config: MixerConfig
    ffn_width: int
    canon: CanonPlaces = "none"


@dataclass(frozen=True)
class TrunkConfig:
    """What a trunk is built from.

    Attributes:
        dim: model width D.
        length: the longest sequence, in tokens.
        layers: the layers from the first to the last.
        drop_path: probability of stochastic depth at the last layer; it rises linearly from 0 at the first.
        dropout: probability of dropout on each residual branch.
    """

    dim: int
    length: int
    layers: tuple[Layer, ...]
    drop_path: float = 0.0
    dropout: float = 0.0


class RMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x²) + 1e-6) · gain` over the last dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension.

        Args:
            x: `[…, D]`.

        Returns:
            `[…, D]`.
        """
        return rms_norm(x, self.weight, NORM_EPS)


class SwiGLU(nn.Module):
    """`W_down( SiLU(W_gate x) ⊙ W_up x )`, no biases: 3·D·F parameters (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Each token by itself.

        Args:
            x_BTD: `[…, D]`.

        Returns:
            `[…, D]`.
        """
        return swiglu(x_BTD, self.gate_up.weight, self.down.weight)


def _noise(dropout: float, drop_path: float) -> nn.Module:
    if not (dropout or drop_path):
        return nn.Identity()
    if not drop_path:
        return nn.Dropout(dropout)
    from timm.layers import DropPath  # as slow to import as torch, and few commands need it

    return nn.Sequential(nn.Dropout(dropout), DropPath(drop_path))


class Block(nn.Module):
    """`x + mixer(norm(x))`, then `x + ffn(norm(x))`; with a Canon layer, the mixer or the feed-forward layer reads
    `norm(x) + conv(norm(x))`.
    """

    def __init__(self, layer: Layer, dim: int, length: int, drop_path: float, dropout: float) -> None:
        super().__init__()
        self.norm_mixer, self.norm_ffn = RMSNorm(dim), RMSNorm(dim)
        self.mixer = layer.mixer(layer.config, dim, length)
        self.ffn = SwiGLU(dim, layer.ffn_width)
        self.drop = _noise(dropout, drop_path)
        self.canon = CanonLayers(layer.canon, dim, layer.config.causal)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        """One block on whole sequences.

        Args:
            x_BTD: hidden states, `[B, T, D]`.
            context: what the mixer reads besides them.

        Returns:
            `[B, T, D]`.
        """
        u_BTD = self.canon(self.norm_mixer(x_BTD), "A", context.mask_BT)
        mixed_BTD = self.drop(self.mixer(u_BTD, context))
        if isinstance(self.drop, nn.Identity) and "C" not in self.canon.taps:
            return feed_forward(
                x_BTD, mixed_BTD, self.norm_ffn.weight, self.ffn.gate_up.weight, self.ffn.down.weight, NORM_EPS
            )
        x_BTD = x_BTD + mixed_BTD
        return x_BTD + self.drop(self.ffn(self.canon(self.norm_ffn(x_BTD), "C", context.mask_BT)))

    def init_state(self, batch: int, max_len: int) -> State:
        """An empty decoding state.

        Args:
            batch: number of sequences, a constant row included.
            max_len: the longest sequence, in tokens.

        Returns:
            The mixer's state, and the last inputs of the short convolutions.
        """
        state = self.mixer.init_state(batch, max_len)
        state.tensors |= {CANON + place: past_BJD for place, past_BJD in self.canon.init_state(batch).items()}
        return state

    def step(self, x_BD: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """One block on one token.

        Args:
            x_BD: hidden state, `[B, D]`.
            state: from `init_state` or the previous call.
            context: what the mixer reads besides the token, with T = 1.

        Returns:
            `[B, D]` and the next state.
        """
        past = {place: state.tensors.pop(CANON + place) for place in self.canon.taps}  # the mixer sees its own state
        u_BD = self.canon.step(self.norm_mixer(x_BD), "A", past)
        mixed_BD, state = self.mixer.step(u_BD, state, context)
        x_BD = x_BD + mixed_BD
        x_BD = x_BD + self.ffn(self.canon.step(self.norm_ffn(x_BD), "C", past))
        state.tensors |= {CANON + place: past_BJD for place, past_BJD in past.items()}
        return x_BD, state


class Trunk(nn.Module):
    """Adds positions, runs the blocks and normalises. The embedding and the head belong to the backbone.

    Attributes:
        needs: what the mixers read besides their input, see `Capabilities.needs`.
        skipped: layers that `forward` leaves out, see `without`.
    """

    def __init__(self, config: TrunkConfig, norm: nn.Module | None = None) -> None:
        """Builds the layers; `reset_parameters` draws the parameters.

        Args:
            config: widths, length and layers.
            norm: the norm after the last block, an RMS norm by default.
        """
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.length, config.dim))
        last = max(len(config.layers) - 1, 1)
        self.blocks = nn.ModuleList(
            Block(layer, config.dim, config.length, config.drop_path * i / last, config.dropout)
            for i, layer in enumerate(config.layers)
        )
        for i, block in enumerate(self._blocks()):
            block.mixer.layer_index = i
        self.norm = norm or RMSNorm(config.dim)
        self.skipped: frozenset[int] = frozenset()
        self.needs: frozenset[str] = frozenset().union(*(block.mixer.capabilities.needs for block in self._blocks()))

    def no_weight_decay(self) -> set[str]:
        """Matrices that weight decay leaves alone, besides all vectors: the positions, and what a mixer declares.

        Returns:
            Names of parameters within the trunk.
        """
        kept = {
            f"blocks.{i}.mixer.{name}"
            for i, block in enumerate(self._blocks())
            for name, _ in block.mixer.named_parameters()
            if name.rpartition(".")[2] in block.mixer.no_weight_decay
        }
        return {"positions", *kept}

    @contextmanager
    def without(self, layers: Iterable[int]) -> Iterator[None]:
        """Leaves layers out of `forward` within a `with` block (the `skip` evaluation of arXiv 2510.11602).

        Args:
            layers: layer indices, from 0.

        Yields:
            Nothing.
        """
        self.skipped = frozenset(layers)
        try:
            yield
        finally:
            self.skipped = frozenset()

    def _blocks(self) -> Sequence[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def reset_parameters(self) -> None:
        """Draws all parameters again, each mixer its own. The FFN's residual outputs shrink with depth (GPT-2)."""
        nn.init.trunc_normal_(self.positions, std=0.02)
        for block in self._blocks():
            nn.init.normal_(block.ffn.gate_up.weight, std=1 / math.sqrt(self.config.dim))
            width = block.ffn.down.in_features
            nn.init.normal_(block.ffn.down.weight, std=1 / math.sqrt(2 * len(self.blocks) * width))
            block.mixer.reset_parameters()
            block.canon.reset_parameters()
        for module in self.modules():
            if isinstance(module, RMSNorm | nn.BatchNorm1d):
                module.reset_parameters()

    @property
    def takes_constant_row(self) -> bool:
        """Whether a layer reads a constant sequence, which runs through the blocks as an extra row of the batch."""
        return "constant row" in self.needs

    def forward(self, x_BTD: Tensor, constant_TD: Tensor | None = None, mask_BT: Tensor | None = None) -> Tensor:
        """Embedded tokens to hidden states.

        Args:
            x_BTD: embedded tokens, `[B, T, D]`, T ≤ length.
            constant_TD: the embedded constant sequence `[T, D]`, where `takes_constant_row`.
            mask_BT: `[B, T]`, True at real tokens; padding is on the left.

        Returns:
            Normalised hidden states, `[B, T, D]`.

        Raises:
            ValueError: where there are too many tokens, or a constant sequence is needed and not given.
        """
        tokens = x_BTD.shape[1]
        self._fits(tokens)
        x_BTD = self._with_constant(x_BTD, constant_TD, tokens) + self.positions[:tokens]
        if constant_TD is not None and mask_BT is not None:
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(1, tokens)])
        context = self._context(x_BTD, mask_BT)
        for i, block in enumerate(self._blocks()):
            if i not in self.skipped:
                x_BTD = block(x_BTD, context)
        return self.norm(x_BTD[:-1] if self.takes_constant_row else x_BTD)

    def init_state(self, batch: int, max_len: int) -> list[State]:
        """Empty decoding states.

        Args:
            batch: number of sequences, without a constant row.
            max_len: the longest sequence, in tokens, at most the trunk's length.

        Returns:
            One state per layer.

        Raises:
            ValueError: where `max_len` is over the trunk's length.
        """
        self._fits(max_len)
        rows = batch + 1 if self.takes_constant_row else batch
        return [block.init_state(rows, max_len) for block in self._blocks()]

    def step(self, x_BD: Tensor, states: list[State], constant_D: Tensor | None = None) -> tuple[Tensor, list[State]]:
        """One embedded token to its hidden state; equals `forward` at that position.

        Args:
            x_BD: embedded token, `[B, D]`.
            states: one state per layer.
            constant_D: the constant sequence's embedded token at this position, where `takes_constant_row`.

        Returns:
            The normalised hidden state `[B, D]`, and the next states.

        Raises:
            ValueError: where the position is over the trunk's length, or a constant sequence is needed and not given.
        """
        position = states[0].position
        self._fits(position + 1)
        x_BD = self._with_constant(x_BD, constant_D, 1) + self.positions[position]
        context, after = self._context(x_BD.unsqueeze(1), None), []
        for block, state in zip(self._blocks(), states, strict=True):
            x_BD, state = block.step(x_BD, state, context)
            after.append(state)
        return self.norm(x_BD[:-1] if self.takes_constant_row else x_BD), after

    def _fits(self, tokens: int) -> None:
        if tokens > self.config.length:
            raise ValueError(f"{tokens} tokens were given, this model was built for at most {self.config.length}")

    def _with_constant(self, x: Tensor, constant: Tensor | None, tokens: int) -> Tensor:
        if not self.takes_constant_row:
            return x
        if constant is None:
            raise ValueError("a layer of this model reads a constant sequence, and none was given (set_constant)")
        return torch.cat([x, (constant[:tokens] if x.dim() == 3 else constant).unsqueeze(0)])

    def _context(self, x_BTD: Tensor, mask_BT: Tensor | None) -> Context:
        # normalised like every layer's own input: raw embeddings are so small that all scores would be equal
        embedding_BTD = F.rms_norm(x_BTD, x_BTD.shape[-1:]) if "embedding" in self.needs else None
        return Context(mask_BT=mask_BT, embedding_BTD=embedding_BTD, constant_row=self.takes_constant_row)
