"""Forgetting attention (FoX, arXiv 2503.02130) as a layer, with or without its Pro block.

    y = W_o merge(o),      o: the read under the forgetting prior                   4D² + H(D + 1) parameters

With `pro` (the paper's figure 3), on projections of E channels, H heads of d:

    q ← RMS_head(W_q x) ⊙ g_q,    k ← RMS_head(shift(W_k x)) ⊙ g_k,    v ← shift(W_v x)
    shift(z)_t = (1 − α_t) z_t + α_t z_{t−1},      α = σ(W_α x), per head, one for keys and one for values
    y = W_o( σ(W_g x) ⊙ RMS_head(o) ⊙ g_o )

A token before the first counts as zero; gains are per channel. 5DE + 3HD + H + 3E parameters; d is the whole number
that brings them nearest to 4D², so E ≈ 0.8 D. The bidirectional variant is ours: a shift mixes in the mean of both
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from backbones.mixers.base import Context, Cost, MixerConfig, State
from backbones.mixers.priors.base import Widths, at_least_fp32, head_width, normal_
from backbones.mixers.priors.forgetting import ForgettingPrior
from backbones.mixers.priors.host_mixer import HostMixer
from backbones.mixers.registry import register

NORM_EPS = 1e-6
Before = tuple[Tensor | None, Tensor | None]  # keys and values of the token before the first, `[B, 1, H, d]`


class FoxConfig(MixerConfig):
    """Options of forgetting attention."""

    pro: bool = Field(
        default=False,
        description="the Pro block: normed queries and keys, shifted keys and values, a normed and gated read",
        json_schema_extra={"introduced_with": False},
    )


class ProBlock(nn.Module):
    """What the Pro block adds to a layer with E channels in all heads."""

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__()
        self.widths, self.causal = widths, causal
        self.shift_proj = nn.Linear(widths.dim, 2 * widths.heads, bias=False)
        self.gate_proj = nn.Linear(widths.dim, widths.values, bias=False)
        self.q_gain, self.k_gain, self.out_gain = (nn.Parameter(torch.empty(widths.values)) for _ in range(3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the projections again; gains are 1."""
        normal_(self.shift_proj.weight)
        normal_(self.gate_proj.weight)
        for gain in (self.q_gain, self.k_gain, self.out_gain):
            nn.init.ones_(gain)

    def inputs(
        self, x_BTD: Tensor, q_BTE: Tensor, k_BTHd: Tensor, v_BTHd: Tensor, before: Before = (None, None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q and k `[B, T, E]` and v of the read."""
        alpha_k, alpha_v = torch.sigmoid(self.shift_proj(x_BTD))[..., None].to(v_BTHd.dtype).chunk(2, dim=2)
        k_BTHd = shifted(k_BTHd, alpha_k, self.causal, before[0])
        q_BTHd = q_BTE.unflatten(-1, (self.widths.heads, -1))
        q_BTE, k_BTE = (self.normed(*z).flatten(2) for z in ((q_BTHd, self.q_gain), (k_BTHd, self.k_gain)))
        return q_BTE, k_BTE, shifted(v_BTHd, alpha_v, self.causal, before[1])

    def normed(self, z_BTHd: Tensor, gain_E: Tensor) -> Tensor:
        """RMS norm per head, in the dtype of z."""
        y = rms_norm(at_least_fp32(z_BTHd), z_BTHd.shape[-1:], eps=NORM_EPS)
        return (y * gain_E.to(y.dtype).view(self.widths.heads, -1)).to(z_BTHd.dtype)

    def output(self, x_BTD: Tensor, y_BTHd: Tensor) -> Tensor:
        """The read, normed and gated, `[B, T, H, d]`."""
        gates = torch.sigmoid(self.gate_proj(x_BTD)).unflatten(-1, (self.widths.heads, -1))
        return self.normed(y_BTHd, self.out_gain) * gates


@register("fox")
class Fox(HostMixer):
    """Softmax attention whose scores decay by gates that read the input."""

    Config = FoxConfig
    Host = ForgettingPrior
    board_note = ""
    paper = "arXiv 2503.02130"
    summary = "forgetting attention: softmax whose scores decay by gates that read the input"
    no_weight_decay = frozenset({"b_f"})

    def __init__(self, config: FoxConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.pro = ProBlock(self.widths, config.causal) if config.pro else None

    @classmethod
    def widths_of(cls, config: MixerConfig, dim: int) -> Widths:
        assert isinstance(config, FoxConfig)
        width, H = head_width(dim, config.heads), config.heads
        if config.pro:
            width = max(1, round((4 * dim**2 - H * (3 * dim + 1)) / ((5 * dim + 3) * H)))
        return Widths(dim, H, width, width)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for block in self.children():
            if isinstance(block, ProBlock):  # there is none yet when the constructor of the base class calls this
                block.reset_parameters()

    def inputs(self, x_BTD: Tensor, context: Context) -> tuple[Sequence[Tensor], Tensor]:
        (q, k, f), v_BTHd = self._project(x_BTD)
        if self.pro is None:
            return (q, k, f), v_BTHd
        k_BTHd = k.unflatten(-1, (self.widths.heads, -1))
        if context.mask_BT is not None:  # what is shifted from padding is zero
            hidden = ~context.mask_BT[..., None, None]
            k_BTHd, v_BTHd = k_BTHd.masked_fill(hidden, 0.0), v_BTHd.masked_fill(hidden, 0.0)
        q, k, v_BTHd = self.pro.inputs(x_BTD, q, k_BTHd, v_BTHd)
        return (q, k, f), v_BTHd

    def output(self, x_BTD: Tensor, y_BTHd: Tensor) -> Tensor:
        return super().output(x_BTD, y_BTHd if self.pro is None else self.pro.output(x_BTD, y_BTHd))

    def init_state(self, batch: int, max_len: int) -> State:
        state = super().init_state(batch, max_len)
        if self.pro is not None:  # the last token's projections, before they are shifted
            for name in ("past_k_B1Hd", "past_v_B1Hd"):
                shape = (batch, 1, self.widths.heads, self.widths.value)
                state.tensors[name] = self.out_proj.weight.new_zeros(shape)
        return state

    def token_inputs(self, x_B1D: Tensor, state: State) -> tuple[Sequence[Tensor], Tensor]:
        (q, k, f), v_B1Hd = self._project(x_B1D)
        if self.pro is None:
            return (q, k, f), v_B1Hd
        k_B1Hd = k.unflatten(-1, (self.widths.heads, -1))
        before = self._exchanged(state, "past_k_B1Hd", k_B1Hd), self._exchanged(state, "past_v_B1Hd", v_B1Hd)
        q, k, v_B1Hd = self.pro.inputs(x_B1D, q, k_B1Hd, v_B1Hd, before)
        return (q, k, f), v_B1Hd

    @staticmethod
    def _exchanged(state: State, name: str, new: Tensor) -> Tensor:
        """The tensor that the state kept under that name, which the new one replaces."""
        old, state.tensors[name] = state.tensors[name], new.to(state.tensors[name].dtype)
        return old.to(new.dtype)

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """As of other host priors; the Pro block adds its projections."""
        assert isinstance(config, FoxConfig)
        plain, widths = super().cost(config, dim, length), cls.widths_of(config, dim)
        if not config.pro:
            return plain
        matrices = dim * (widths.values + 2 * widths.heads)
        return Cost(
            plain.parameters + matrices + 3 * widths.values,
            plain.flops + 2 * matrices,
            plain.state_bytes + 4 * 2 * widths.values * config.causal,
        )


def shifted(z_BTHd: Tensor, alpha_BTH1: Tensor, causal: bool, before_B1Hd: Tensor | None = None) -> Tensor:
    """(1 − α) z_t + α z_{t−1}; not causal: the mean of both neighbours in place of z_{t−1}.

    Args:
        z_BTHd: `[B, T, H, d]`, zero at padding.
        alpha_BTH1: α, from 0 to 1, `[B, T, H, 1]`.
        causal: whether only the token before is mixed in.
        before_B1Hd: the one before the first token; None: zeros.

    Returns:
        `[B, T, H, d]`.
    """
    edge = torch.zeros_like(z_BTHd[:, :1])
    other = torch.cat((edge if before_B1Hd is None else before_B1Hd, z_BTHd[:, :-1]), dim=1)
    if not causal:
        other = (other + torch.cat((z_BTHd[:, 1:], edge), dim=1)) / 2
    return z_BTHd + alpha_BTH1 * (other - z_BTHd)
