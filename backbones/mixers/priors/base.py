"""The prior: a mixer's weights without its values, the seam that FEM stands on.

A prior turns `x` into weights `p_t(i) ≥ 0`, `Σ_i p_t(i) = 1` over the visible indices, and offers two operations for
any width w:

    read(v)      = Σ_i p_t(i) v_i
    log_read(u)  = log Σ_i p_t(i) exp(u_i)          exact for any finite u

`free_energy` is both at once, (E_p[v], log_read(βv)/β): a host may override it with one fused pass.
Shape letters: B batch, T tokens, D model width, H heads, k and d key and value width a head, E = H·d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError

MAP_COLUMNS = 32  # of an attention map, read at a time


@dataclass(frozen=True)
class Widths:
    """dim: D. key and value: k and d, a head."""

    dim: int
    heads: int
    key: int
    value: int

    @property
    def values(self) -> int:
        return self.heads * self.value


class Prior(nn.Module, ABC):
    """Weights of one host. The mixer projects `keys` (queries, keys, whatever the host weighs by) together with its
    values.
    """

    constant_state: ClassVar[bool] = True
    """the decoding state doesn't grow with the length"""
    grain: ClassVar[int] = 4
    """the steps of width that FEM's solver tries below D = 256, twice that from there on: 4 where the kernel likes
    round tiles, finer
    where it doesn't care, so that every arm of an ablation fits its budget"""

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__()
        self.widths, self.causal = widths, causal

    def reset_parameters(self) -> None:
        """Draws the host's own parameters; most have none beside the mixer's projections."""

    @staticmethod
    @abstractmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        """Widths of what the mixer projects from x for this host: queries, keys."""

    @abstractmethod
    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> Any:
        """The weights, in whatever form `read` wants them. `keys`: the projections, `[B, T, …]`. `offset`: position of
        the first token.
        """

    @abstractmethod
    def read(self, weights: Any, v_BTHw: Tensor) -> Tensor:
        """E_p[v]. Hosts with weights a channel apply them to each copy of their d channels: w is a multiple of d
        there.
        """

    @abstractmethod
    def log_read(self, weights: Any, u_BTHw: Tensor) -> Tensor:
        """log E_p[exp(u)], exact for any finite u."""

    def free_energy(self, weights: Any, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        """(E_p[v], F(β))."""
        return self.read(weights, v_BTHd), self.log_read(weights, v_BTHd * beta_Hd) / beta_Hd

    def finish(self, weights: Any, y_BTHd: Tensor) -> Tensor:
        """What the host does to the finished read, outside of any logarithm."""
        return y_BTHd

    @abstractmethod
    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        """What decoding keeps of `batch` sequences, of `like`'s dtype and device."""

    @abstractmethod
    def step(
        self, weights: Any, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(E_p[v], F(β) or None without β) of one token, whose `weights` are `prepare`d at T = 1. Updates `state`."""

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        """The host's own parameters, without the projections."""
        return 0

    @staticmethod
    @abstractmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """Forward FLOPs a token of preparing and reading, without the projections."""

    @staticmethod
    @abstractmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        """How many numbers the decoding state holds after `length` tokens."""


def prior_map(prior: Prior, weights: Any, like_BTD: Tensor) -> Tensor:
    """The weights themselves, `[B, H, T, T]`, read from one-hot values; where they differ by channel, their mean over a
    head's channels.
    A few columns at a time: all at once would take T²·D numbers."""
    B, T, _ = like_BTD.shape
    H, d = prior.widths.heads, prior.widths.value
    one_hot_TT, columns = torch.eye(T, dtype=like_BTD.dtype, device=like_BTD.device), []
    for some_TC in one_hot_TT.split(MAP_COLUMNS, dim=1):
        values_T1w = some_TC[..., None].expand(-1, -1, d).flatten(1)[:, None]
        read_BTHw = prior.read(weights, values_T1w.expand(B, -1, H, -1))
        columns.append(read_BTHw.unflatten(-1, (-1, d)).mean(-1))
    return torch.cat(columns, dim=-1).transpose(1, 2)


def normal_(weight: Tensor) -> None:
    """The one initialisation of projections: N(0, 1/(3·fan in)), which is N(0, .02²) at D = 833."""
    nn.init.normal_(weight, std=(3 * weight.shape[1]) ** -0.5)


def head_width(dim: int, heads: int, even: bool = False) -> int:
    """D/H. Raises MixerError where the heads do not divide the width (into even parts)."""
    unit = 2 if even else 1
    if dim % (heads * unit):
        fitting = [h for h in range(1, dim // unit + 1) if dim % (h * unit) == 0]
        raise MixerError(
            f"heads={heads} does not divide the width {dim} into {'even ' if even else ''}parts; choose one of "
            f"{fitting}"
        )
    return dim // heads
