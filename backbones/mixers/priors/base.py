"""The prior: a mixer's weights without its values, the interface that FEM is built on.

A prior turns `x` into weights `p_t(i) ≥ 0`, `Σ_i p_t(i) = 1` over the visible indices, and offers two operations for
any width w:

    read(v)      = Σ_i p_t(i) v_i
    log_read(u)  = log Σ_i p_t(i) exp(u_i)          exact for any finite u

`free_energy` is both at once, (E_p[v], log_read(βv)/β): a prior may override it with one fused pass.
Shape letters: B batch, T tokens, D model width, H heads, k and d key and value width per head, E = H·d.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError
from kernels.decoding.layer import Gates
from kernels.projection import projections

TAPS = 4  # of short convolutions, where a paper has them
MAP_COLUMNS = 32  # columns of an attention map that are read at a time


@dataclass(frozen=True)
class Widths:
    """dim: model width D. key, value: k and d, per head."""

    dim: int
    heads: int
    key: int
    value: int

    @property
    def values(self) -> int:
        """E, the value width of all heads."""
        return self.heads * self.value


class Prior(nn.Module, ABC):
    """The weights of one host.

    The mixer computes the prior's `keys` (queries, keys, or whatever else the weights depend on) and the values in one
    projection; a prior's own parameters are what that projection does not cover.

    Attributes:
        constant_state: whether the decoding state does not grow with the length.
        fused_step: whether `layer_step` may take a step.
        grain: the step of width that FEM's solver tries below D = 256, and twice that from there on. It is 4 where the
            kernel prefers round tiles, and finer elsewhere, so that every variant of an ablation fits its budget.
    """

    constant_state: ClassVar[bool] = True
    fused_step: ClassVar[bool] = False
    grain: ClassVar[int] = 4

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__()
        self.widths, self.causal = widths, causal

    def reset_parameters(self) -> None:
        """Draws the prior's own parameters from torch's global generator; most priors have none."""

    @staticmethod
    @abstractmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        """Widths of what the mixer projects from x for this prior: queries and keys, say.

        Args:
            widths: widths of the layer.

        Returns:
            One width of all heads per projection; `prepare` receives the projections in this order.
        """

    @abstractmethod
    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> Any:
        """The weights, in whatever representation `read` needs.

        Args:
            x_BTD: the layer's input, `[B, T, D]`.
            keys: the projections that `projected` lists, `[B, T, width]` each.
            context: the mask, where tokens are padding.
            offset: position of the first token.

        Returns:
            The prior's own type, passed on to `read`, `log_read`, `free_energy`, `finish` and `step`.
        """

    @abstractmethod
    def read(self, weights: Any, v_BTHw: Tensor) -> Tensor:
        """E_p[v].

        Args:
            weights: from `prepare`.
            v_BTHw: values `[B, T, H, w]`. Priors whose weights differ by channel apply them to each copy of their d
                channels: w is a multiple of d there.

        Returns:
            The weighted mean, `[B, T, H, w]`.
        """

    @abstractmethod
    def log_read(self, weights: Any, u_BTHw: Tensor) -> Tensor:
        """log E_p[exp(u)], exact for any finite u.

        Args:
            weights: from `prepare`.
            u_BTHw: `[B, T, H, w]`, w as in `read`.

        Returns:
            `[B, T, H, w]`, in nats.
        """

    def free_energy(self, weights: Any, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the free energy, (E_p[v], log E_p[exp(βv)] / β).

        Args:
            weights: from `prepare`.
            v_BTHd: values `[B, T, H, d]`.
            beta_Hd: inverse temperatures β > 0, `[H, d]`.

        Returns:
            (μ, F), `[B, T, H, d]` each, in the units of v.
        """
        return self.read(weights, v_BTHd), self.log_read(weights, v_BTHd * beta_Hd) / beta_Hd

    def finish(self, weights: Any, y_BTHd: Tensor) -> Tensor:
        """What the host does to the finished read, outside of any logarithm; the identity for most.

        Args:
            weights: from `prepare`.
            y_BTHd: the finished read, `[B, T, H, d]`.

        Returns:
            `[B, T, H, d]`.
        """
        return y_BTHd

    @abstractmethod
    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        """An empty decoding state.

        Args:
            batch: number of sequences.
            max_len: the longest sequence, in tokens.
            like: a tensor with the state's dtype and device.
            free_energy: whether `step` will be called with β.

        Returns:
            Tensors by name, which `step` updates.
        """

    @abstractmethod
    def step(
        self, weights: Any, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Decodes one token.

        Args:
            weights: from `prepare` on that token alone.
            v_B1Hd: the token's values, `[B, 1, H, d]`.
            state: from `init_state`; updated in place.
            position: the token's position, from 0.
            beta_Hd: inverse temperatures `[H, d]`, or None where no free energy is needed.

        Returns:
            (E_p[v], F(β)), `[B, 1, H, d]` each; F is None without β.
        """

    def layer_step(self, x_BD: Tensor, z_BC: Tensor, state: dict[str, Tensor], gates: Gates | None) -> Tensor | None:
        """One token in one compiled operation, for priors that have one: `prepare`, `step`, FEM's mix and `finish`.

        Args:
            x_BD: the layer's input `[B, D]`.
            z_BC: its projections, side by side: those of `projected`, the values and, with gates, λ and the outer gate,
                not yet scaled by FEM's convolution.
            state: from `init_state`; updated in place.
            gates: what FEM adds; None for the mean alone.

        Returns:
            `[B, E]`; None where `step` has to run instead.
        """
        return None

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        """The prior's own parameters, without the projections.

        Args:
            widths: widths of the layer.

        Returns:
            Number of trainable parameters.
        """
        return 0

    @staticmethod
    @abstractmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """FLOPs of preparing and reading, without the projections.

        Args:
            widths: widths of the layer.
            length: tokens T of the sequence.
            free_energy: whether the free energy is read too.

        Returns:
            Forward FLOPs per token, 2 per multiply-add.
        """

    @staticmethod
    @abstractmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        """Size of the decoding state.

        Args:
            widths: widths of the layer.
            length: tokens seen.
            free_energy: whether the state serves the free energy too.

        Returns:
            How many numbers the state of one sequence holds.
        """


def prior_map(prior: Prior, weights: Any, like_BTD: Tensor) -> Tensor:
    """The weights as an attention map, read from one-hot values; where they differ by channel, their mean per head.

    A few columns are read at a time: all at once would take T²·D numbers.

    Args:
        prior: whose weights they are.
        weights: from `prior.prepare`.
        like_BTD: the layer's input `[B, T, D]`; only its shape, dtype and device matter.

    Returns:
        `[B, H, T, T]`: row t has the weights of position t.
    """
    B, T, _ = like_BTD.shape
    H, d = prior.widths.heads, prior.widths.value
    one_hot_TT, columns = torch.eye(T, dtype=like_BTD.dtype, device=like_BTD.device), []
    for some_TC in one_hot_TT.split(MAP_COLUMNS, dim=1):
        values_T1w = some_TC[..., None].expand(-1, -1, d).flatten(1)[:, None]
        read_BTHw = prior.read(weights, values_T1w.expand(B, -1, H, -1))
        columns.append(read_BTHw.unflatten(-1, (-1, d)).mean(-1))
    return torch.cat(columns, dim=-1).transpose(1, 2)


def running(like: Tensor) -> Tensor:
    """For the part of a decoding state that accumulates tokens.

    Args:
        like: a parameter of the layer.

    Returns:
        An empty tensor of its device, in fp32 at least.
    """
    return like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))


def projected_out(linear: nn.Linear, y: Tensor) -> Tensor:
    """`linear(y)` for a y in fp32 at least: outside autocast it takes the dtype of the weights, which may be half.

    Args:
        linear: the output projection.
        y: `[…, in]`.

    Returns:
        `[…, out]`.
    """
    device = y.device.type
    chosen_by_autocast = device != "meta" and torch.is_autocast_enabled(device)  # which knows no meta device
    y = y if chosen_by_autocast else y.to(linear.weight.dtype)
    out: Tensor = linear(y) if linear.bias is not None else projections(y, linear.weight, linear.weight.shape[:1])[0]
    return out


def normal_(weight: Tensor) -> None:
    """The one initialisation of projections: N(0, 1/(3·fan in)), which is N(0, .02²) at D = 833.

    Args:
        weight: `[out, in]`, drawn in place.
    """
    nn.init.normal_(weight, std=(3 * weight.shape[1]) ** -0.5)


def uniform_taps_(taps_JD: Tensor) -> None:
    """The initialisation of a short convolution, that of PyTorch's `Conv1d` with one channel per group.

    Args:
        taps_JD: J taps per channel or their biases, drawn in place from ±4^{−½}, J = 4.
    """
    nn.init.uniform_(taps_JD, -(TAPS**-0.5), TAPS**-0.5)


def log_uniform_steps_(bias: Tensor, least: float, largest: float) -> None:
    """The initialisation of step sizes Δ = softplus(bias) (arXiv 2312.00752): log-uniform.

    Args:
        bias: drawn in place.
        least: of the steps.
        largest: of the steps.
    """
    with torch.no_grad():
        steps = torch.empty_like(bias).uniform_(math.log(least), math.log(largest)).exp()
        bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus


def head_width(dim: int, heads: int, even: bool = False) -> int:
    """Width per head, D/H.

    Args:
        dim: model width D.
        heads: number of heads H.
        even: whether the width has to be even, as rotary positions need it.

    Returns:
        D/H.

    Raises:
        MixerError: where the heads do not divide the width, with the numbers of heads that do.
    """
    unit = 2 if even else 1
    if dim % (heads * unit):
        fitting = [h for h in range(1, dim // unit + 1) if dim % (h * unit) == 0]
        raise MixerError(
            f"heads={heads} does not divide the width {dim} into {'even ' if even else ''}parts; choose one of "
            f"{fitting}"
        )
    return dim // heads


def at_least_fp32(x: Tensor) -> Tensor:
    """Half precision to fp32: sums of positive terms over a whole sequence do not fit it.

    Args:
        x: any tensor.

    Returns:
        The same values in fp32, or unchanged where the dtype is fp32 or fp64.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
