"""HyperMLP and HyperGLU (arXiv 2602.12601): a row of attention scores is the hidden layer of an MLP over the history.

Per head, with the history in lag order (newest first) and `R(x) = I + Diag(p) + A Diag(sigmoid(x W_s)) Bᵀ`, `[L×L]` and
never materialised, with `‖h‖₂ = sqrt(Σ h² + 1e-12)`:

    h_t = x_t W_q Diag(sigmoid(x_t W_m1)) W_kᵀ X̃ᵀ · R1(x_t)            X̃: a short depthwise convolution of the history
    act = ReLU(h)/‖h‖₂    or, in HyperGLU, with two score sets    softplus(h_scale) ⊙ ReLU(h_gate)/‖h_gate‖₂
    o_t = ( act(h_t) · R2(x_t)ᵀ · X̃ W_v ) ⊙ sigmoid(x_t W_m2) · W_o

Without causality, tables are indexed by the signed offset t − i and the convolution is symmetric. The tables have the
task's length L, so their parameters depend on it; queries and keys are narrower in return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, State
from backbones.mixers.errors import MixerError
from backbones.mixers.hyper.config import MAX_RANK, HyperConfig
from backbones.mixers.hyper.size import solve
from backbones.mixers.priors.base import head_width, normal_
from backbones.mixers.registry import register
from kernels.hyper.lag_mixing import LagMixing, lag_mix
from kernels.numerics.lag_layout import Layout
from kernels.projection import projections
from kernels.short_conv import short_conv

TAPS = 4  # of the convolution, mirrored where it is symmetric


class HyperMixer(Mixer):
    """Base class of both, which differ by the number of score sets."""

    Config = HyperConfig
    capabilities = Capabilities()
    version = 2  # version 1: eps 1e-6 in the norm of a row
    paper = "arXiv 2602.12601"
    board_options = ("rank", "d_qk")  # a result at rank 1 is not one about the method
    no_weight_decay = frozenset({"taps", "lag_p"})  # they start at the identity, not at zero weights
    name: ClassVar[str]
    sets: ClassVar[int]  # score sets
    config: HyperConfig

    def __init__(self, config: HyperConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.layout = Layout(config.causal, config.lag_layout, length)
        self.rank, self.d_qk = self.widths_of(config, dim)
        self.in_splits, self.kv_splits = self.splits(config, dim)
        self.in_proj = nn.Linear(dim, sum(self.in_splits), bias=False)  # W_q, W_m1, W_m2, all W_s
        self.kv_proj = nn.Linear(dim, sum(self.kv_splits), bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        shape = (self.mixings(config), config.heads, self.layout.table)
        self.lag_A = nn.Parameter(torch.empty(*shape, self.rank))
        self.lag_B = nn.Parameter(torch.empty(*shape, self.rank))
        self.lag_p = nn.Parameter(torch.empty(*shape))
        self.taps = nn.Parameter(torch.empty(TAPS, dim)) if config.convolution else None
        self.reset_parameters()

    @classmethod
    def widths_of(cls, config: HyperConfig, dim: int) -> tuple[int, int]:
        """(rank, d_qk). Raises MixerError where they are not given, or the heads do not divide them."""
        head_width(dim, config.heads)
        if config.rank is None or config.d_qk is None:
            raise MixerError(
                f"{cls.name}: rank and d_qk are not given; set both, or solve them for a budget (Mixer.size)"
            )
        unit = config.heads * cls.sets
        if config.d_qk % unit:
            raise MixerError(f"{cls.name}: d_qk={config.d_qk} has to be a multiple of {unit}, heads × score sets")
        return config.rank, config.d_qk

    @classmethod
    def mixings(cls, config: HyperConfig) -> int:
        """Number of mixing operators R: one per score set before the activation, one after it."""
        return {"both": cls.sets + 1, "R1": cls.sets, "R2": 1}[config.mixing]

    @classmethod
    def splits(cls, config: HyperConfig, dim: int) -> tuple[list[int], list[int]]:
        """Widths of the projections of x (q, m1, m2, all s; 0 where off) and of its convolution (k, v)."""
        rank, d_qk = cls.widths_of(config, dim)
        gated = [d_qk, dim, cls.mixings(config) * config.heads * rank]
        return [d_qk, *(w * config.gates for w in gated)], [d_qk, dim]

    def reset_parameters(self) -> None:
        for linear in (self.in_proj, self.kv_proj, self.out_proj):
            normal_(linear.weight)
        nn.init.normal_(self.lag_A, std=0.02)
        nn.init.normal_(self.lag_B, std=0.02)
        nn.init.zeros_(self.lag_p)
        if self.taps is not None:  # the identity: small random taps would shrink keys and values
            nn.init.zeros_(self.taps)
            nn.init.ones_(self.taps[0])

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        self._refuse_longer(x_BTD.shape[1])
        mask_BT = context.mask_BT
        if mask_BT is None:
            return self._forward(x_BTD, None)
        x_BTD = x_BTD.masked_fill(~mask_BT[..., None], 0.0)
        if self.config.lag_layout:
            return self._forward(x_BTD, mask_BT)
        shift_B1 = (~mask_BT).sum(1, keepdim=True)  # positions count from the first real token
        y_BTD = self._forward(_roll(x_BTD, shift_B1), _roll(mask_BT[..., None], shift_B1)[..., 0])
        return _roll(y_BTD, -shift_B1)

    def _forward(self, x_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        near_BTD = x_BTD if self.taps is None else short_conv(x_BTD, self.taps, self.config.causal).to(x_BTD.dtype)
        k_SHBTd, v_HBTw = self._keys_values(near_BTD)
        return self._read(x_BTD, k_SHBTd, v_HBTw, mask_BT)

    def _keys_values(self, near_BTD: Tensor) -> tuple[Tensor, Tensor]:
        k_BTK, v_BTD = projections(near_BTD, self.kv_proj.weight, self.kv_splits)
        return self._score_sets(k_BTK), v_BTD.unflatten(-1, (self.config.heads, -1)).permute(2, 0, 1, 3)

    def _score_sets(self, x_BTK: Tensor) -> Tensor:
        """`[S, H, B, T, d]`: the channels of a head are those of the first score set, then of the second."""
        return x_BTK.unflatten(-1, (self.config.heads, self.sets, -1)).permute(3, 2, 0, 1, 4)

    def _read(self, x_BTD: Tensor, k_SHBTd: Tensor, v_HBTw: Tensor, mask_BT: Tensor | None) -> Tensor:
        """The output at x's tokens, which are the last ones of the keys."""
        q_BTK, m1_BTK, m2_BTD, s_BTM = projections(x_BTD, self.in_proj.weight, self.in_splits)
        if self.config.gates:
            q_BTK = q_BTK * m1_BTK.sigmoid()
        *before, after = self._mixings(s_BTM, x_BTD)
        read_HBTw = lag_mix(self._score_sets(q_BTK), k_SHBTd, v_HBTw, before, after, self.layout, mask_BT)
        y_BTD = read_HBTw.permute(1, 2, 0, 3).flatten(2).to(v_HBTw.dtype)
        if self.config.gates:
            y_BTD = y_BTD * m2_BTD.sigmoid()
        return projections(y_BTD, self.out_proj.weight, (y_BTD.shape[-1],))[0]

    def _mixings(self, s_BTM: Tensor, x_BTD: Tensor) -> list[LagMixing | None]:
        """R1 of each score set, then R2ᵀ; None where it is off. R1 mixes by A, then Bᵀ; R2ᵀ by B, then Aᵀ."""
        shape = (self.mixings(self.config), self.config.heads, self.rank)
        if self.config.gates:
            control = s_BTM.sigmoid().unflatten(-1, shape).permute(2, 3, 0, 1, 4)
        else:
            control = x_BTD.new_ones(*shape[:2], *x_BTD.shape[:2], self.rank)
        made = [LagMixing(self.lag_A[j], self.lag_B[j], self.lag_p[j], control[j]) for j in range(shape[0])]
        before: list[LagMixing | None] = [None] * self.sets if self.config.mixing == "R2" else [*made[: self.sets]]
        if self.config.mixing == "R1":
            return [*before, None]
        return [*before, made[-1]._replace(first_HLr=made[-1].second_HLr, second_HLr=made[-1].first_HLr)]

    def _refuse_longer(self, tokens: int) -> None:
        if tokens > self.length:
            raise MixerError(
                f"{self.name}: T={tokens} is more than the length {self.length} of its tables; build it with "
                f"length {tokens}"
            )

    def init_state(self, batch: int, max_len: int) -> State:
        self._refuse_longer(max_len)
        self.require_causal()
        heads, zeros = self.config.heads, self.out_proj.weight.new_zeros
        tensors = {
            "k_SHBTd": zeros(self.sets, heads, batch, max_len, self.d_qk // heads // self.sets),
            "v_HBTw": zeros(heads, batch, max_len, self.dim // heads),
        }
        if self.taps is not None:
            tensors["recent_BJD"] = zeros(batch, TAPS - 1, self.dim)
        return State(tensors)

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        position, tensors = state.position, dict(state.tensors)
        self._refuse_longer(position + 1)
        near_B1D = x_BD[:, None]
        if self.taps is not None:
            window_BJD = torch.cat([tensors["recent_BJD"].to(x_BD.dtype), near_B1D], dim=1)
            near_B1D = (window_BJD * self.taps.flip(0)).sum(1, keepdim=True).to(x_BD.dtype)
            tensors["recent_BJD"] = window_BJD[:, 1:]
        k_SHB1d, v_HB1w = self._keys_values(near_B1D)
        tensors["k_SHBTd"][..., position, :] = k_SHB1d[..., 0, :]
        tensors["v_HBTw"][..., position, :] = v_HB1w[..., 0, :]
        k_SHBTd, v_HBTw = tensors["k_SHBTd"][..., : position + 1, :], tensors["v_HBTw"][..., : position + 1, :]
        y_B1D = self._read(x_BD[:, None], k_SHBTd, v_HBTw, None)
        return y_B1D[:, 0], State(tensors, position + 1)

    @classmethod
    def candidates(cls, config: HyperConfig, dim: int, length: int) -> Iterable[HyperConfig]:  # type: ignore[override]
        """All ranks, highest first, with all widths from D/16 to D."""
        for rank in cls.ranks(config):
            yield from (config.model_copy(update={"rank": rank, "d_qk": d_qk}) for d_qk in cls.qk_widths(config, dim))

    @classmethod
    def ranks(cls, config: HyperConfig) -> Sequence[int]:
        return [config.rank] if config.rank else range(MAX_RANK, 0, -1)

    @classmethod
    def qk_widths(cls, config: HyperConfig, dim: int) -> Sequence[int]:
        return (
            [config.d_qk]
            if config.d_qk
            else range(cls.least_width(config, dim, 16), dim + 1, cls.width_unit(config, dim))
        )

    @classmethod
    def width_unit(cls, config: HyperConfig, dim: int) -> int:
        """Step of d_qk: one channel per head and score set, 4 per head from D = 256 on."""
        return config.heads * (cls.sets if dim < 256 else 4)

    @classmethod
    def least_width(cls, config: HyperConfig, dim: int, part: int) -> int:
        """D/part, rounded up to a multiple of the step."""
        unit = cls.width_unit(config, dim)
        return -(-dim // (part * unit)) * unit

    @classmethod
    def size(cls, config: HyperConfig, dim: int, length: int, budget: int) -> HyperConfig:  # type: ignore[override]
        """The largest rank with d_qk ≥ D/8, then the d_qk nearest to the budget.

        Raises MixerError where rank 1 with d_qk = D/16 is over the budget.
        """
        head_width(dim, config.heads)
        return solve(cls, config, dim, length, budget)

    @classmethod
    def cost(cls, config: HyperConfig, dim: int, length: int) -> Cost:  # type: ignore[override]
        """FLOPs: projections; scores and read 2·L per channel; each mixing 4·L·r per head; 4 taps per channel (7 where
        symmetric).
        """
        rank, d_qk = cls.widths_of(config, dim)
        into, kv = cls.splits(config, dim)
        projections = dim * (sum(into) + sum(kv) + dim)
        mixings, taps = cls.mixings(config) * config.heads, TAPS * config.convolution
        table = Layout(config.causal, config.lag_layout, length).table
        shifts = taps if config.causal else max(0, 2 * taps - 1)
        mixing_flops = mixings * 4 * length * rank
        return Cost(
            parameters=projections + mixings * table * (2 * rank + 1) + taps * dim,
            flops=2 * (projections + shifts * dim) + 2 * length * (d_qk + dim) + mixing_flops,
            state_bytes=4 * (length * (d_qk + dim) + max(0, taps - 1) * dim) if config.causal else 0,
        )


def _roll(x_BTw: Tensor, shift_B1: Tensor) -> Tensor:
    """Each row b rolled to the left by its own shift."""
    T = x_BTw.shape[1]
    index_BT = (torch.arange(T, device=x_BTw.device) + shift_B1) % T
    return x_BTw.gather(1, index_BT[..., None].expand_as(x_BTw))


@register("hypermlp")
class HyperMLP(HyperMixer):
    """One score set, ReLU and the L2 norm."""

    name = "hypermlp"
    sets = 1
    summary = "HyperMLP: ReLU attention over lags, mixed among lags by low-rank operators"


@register("hyperglu")
class HyperGLU(HyperMixer):
    """Two score sets: a gate that selects, and a scale that weights."""

    name = "hyperglu"
    sets = 2
    summary = "HyperGLU: HyperMLP with a second score set that scales what the first one selects"
