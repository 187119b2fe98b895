"""A small correct mixer (softmax pooling with one learned score per token), and variants that each fail one check."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State


class PoolConfig(MixerConfig):
    width: int | None = Field(
        default=None, ge=1, description="width of the pooled values; solved for the budget when not given"
    )


class Pool(Mixer):
    """`y_t = W_o Σ_i p_t(i) W_v x_i`, `p_t(i) ∝ exp(w·x_i)` over the visible i."""

    Config = PoolConfig
    capabilities = Capabilities(constant_state=True)
    config: PoolConfig

    def __init__(self, config: PoolConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        assert config.width is not None
        self.values = nn.Linear(dim, config.width, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)
        self.out = nn.Linear(config.width, dim, bias=False)

    def reset_parameters(self) -> None:
        for linear in (self.values, self.score, self.out):
            nn.init.normal_(linear.weight, std=0.02)

    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        T = x_BTD.shape[1]
        score_BTT = self.score(x_BTD).transpose(1, 2).expand(-1, T, -1)
        if self.config.causal:
            score_BTT = score_BTT.masked_fill(
                torch.ones(T, T, dtype=torch.bool, device=x_BTD.device).triu(1), float("-inf")
            )
        if context.mask_BT is not None:
            score_BTT = score_BTT.masked_fill(~context.mask_BT[:, None], -1e30)
        return score_BTT.softmax(-1)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        p_BTT = self.weights(x_BTD, context)
        out: Tensor = self.out(torch.bmm(p_BTT.to(x_BTD.dtype), self.values(x_BTD).to(x_BTD.dtype)))
        return out

    plain_forward = forward

    def init_state(self, batch: int, max_len: int) -> State:
        assert self.config.width is not None
        like = self.out.weight
        zeros = partial(like.new_zeros, dtype=torch.promote_types(like.dtype, torch.float32))
        tensors = {
            "top": torch.full_like(zeros(batch, 1), -1e30),
            "mass": zeros(batch, 1),
            "sum": zeros(batch, self.config.width),
        }
        return State(tensors)

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        old = state.tensors
        score_B1 = self.score(x_BD)
        top_B1 = torch.maximum(old["top"], score_B1)
        fade, new = (old["top"] - top_B1).exp(), (score_B1 - top_B1).exp()
        mass, total = old["mass"] * fade + new, old["sum"] * fade + new * self.values(x_BD)
        return self.out((total / mass).to(x_BD.dtype)), State(
            {"top": top_B1, "mass": mass, "sum": total}, state.position + 1
        )

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[PoolConfig]:
        assert isinstance(config, PoolConfig)
        widths = range(4, 4 * dim + 1, 4) if config.width is None else [config.width]
        return [config.model_copy(update={"width": width}) for width in widths]

    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        assert isinstance(config, PoolConfig)
        assert config.width is not None
        products = 2 * dim * config.width + dim
        return Cost(products, 2 * products + 2 * length * config.width, 4 * (config.width + 2) if config.causal else 0)


class LeaksFuture(Pool):
    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        return super().weights(x_BTD, context) + 1e-4 / x_BTD.shape[1]


class LeaksAtABlock(Pool):
    """The last token of the first block of 64 sees the next one."""

    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        p_BTT = super().weights(x_BTD, context)
        if self.config.causal and x_BTD.shape[1] > 64:
            p_BTT = p_BTT.clone()
            p_BTT[:, 63, 64] += 1e-3
        return p_BTT


class LeaksByScale(Pool):
    """Divides by a maximum over the whole sequence: harmless until a later token is large."""

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        top = x_BTD.detach().abs().amax((1, 2), keepdim=True)
        return super().forward((x_BTD / top).half().to(x_BTD.dtype) * top if not x_BTD.is_meta else x_BTD, context)


class IgnoresLastToken(Pool):
    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        p_BTT = super().weights(x_BTD, context)
        p_BTT = p_BTT if self.config.causal else p_BTT.tril(p_BTT.shape[1] - 2)
        return p_BTT / p_BTT.sum(-1, keepdim=True)


class IgnoresMask(Pool):
    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        return super().weights(x_BTD, Context())


class MixesRows(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD - 1e-3 * x_BTD.mean(0), context)


class MiscountsParameters(Pool):
    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        right = Pool.cost(config, dim, length)
        return Cost(right.parameters - (dim if length > 1000 else 0), right.flops, right.state_bytes)


class HidesNumbersInABuffer(Pool):
    def __init__(self, config: PoolConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.register_buffer("table", torch.ones(dim))


class HidesNumbersInAFrozenParameter(Pool):
    def __init__(self, config: PoolConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.table = nn.Parameter(torch.ones(dim), requires_grad=False)


class MiscountsFlops(Pool):
    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        right = Pool.cost(config, dim, length)
        return Cost(right.parameters, int(right.flops * 1.03), right.state_bytes)


class MiscountsState(Pool):
    @staticmethod
    def cost(config: MixerConfig, dim: int, length: int) -> Cost:
        right = Pool.cost(config, dim, length)
        return Cost(right.parameters, right.flops, right.state_bytes + 4)


class DeclaresGrowingState(Pool):
    capabilities = Capabilities(constant_state=False)


class DeadParameter(Pool):
    """A bias on every score cancels in the softmax."""

    def __init__(self, config: PoolConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.score = nn.Linear(dim, 1)


class StepDrifts(Pool):
    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        out_BD, state = super().step(x_BD, state, context)
        return out_BD * (1 + 1e-7 * state.position), state


class StepDriftsLate(Pool):
    """Its state loses precision from the second block on."""

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        out_BD, state = super().step(x_BD, state, context)
        return out_BD * (1 + 1e-4 * (state.position > 65)), state


class Drops(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(nn.functional.dropout(x_BTD, 0.1, self.training), context)


class Overflows(Pool):
    def weights(self, x_BTD: Tensor, context: Context) -> Tensor:
        p_BTT = (self.score(x_BTD).transpose(1, 2).expand(-1, x_BTD.shape[1], -1)).exp()
        p_BTT = p_BTT.tril() if self.config.causal else p_BTT
        p_BTT = p_BTT if context.mask_BT is None else p_BTT * context.mask_BT[:, None]
        return p_BTT / p_BTT.sum(-1, keepdim=True)


class WrongGradient(Pool):
    """One percent too much of one parameter's gradient in one entry, in sequences of more than a few tokens."""

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        y_BTD = super().forward(x_BTD, context)
        if x_BTD.shape[1] <= 32:
            return y_BTD
        extra = 0.01 * y_BTD[..., :1] * self.out.weight[0, 0]
        return y_BTD + (extra - extra.detach())


class LooseConfig(PoolConfig):
    model_config = ConfigDict(extra="ignore")


class AcceptsAnything(Pool):
    Config = LooseConfig


class KeepsAParameter(Pool):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.values.weight, std=0.02)
        nn.init.normal_(self.out.weight, std=0.02)


class UnsavedTable(Pool):
    """Its output depends on a random table that the state_dict leaves out."""

    def __init__(self, config: PoolConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        self.register_buffer("table", torch.randn(dim), persistent=False)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD + self.get_buffer("table").to(x_BTD), context)


class NeedsEvenLength(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        halves = x_BTD.unflatten(1, (2, -1)) if x_BTD.shape[1] > 2 else x_BTD
        return super().forward(halves.reshape(x_BTD.shape), context)


class ReturnsFp32(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD, context).to(torch.promote_types(x_BTD.dtype, torch.float32))


class StepIsCoarseInHalf(Pool):
    """Its mass is rounded to the parameters' dtype, and its step then drifts."""

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        out_BD, state = super().step(x_BD, state, context)
        return out_BD * (1 + 4 * torch.finfo(x_BD.dtype).eps * state.position), state


class NeedsARow(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD, context) + 0 * x_BTD[0, 0].sum()


class BranchesOnValues(Pool):
    """A graph can hold only one of its branches."""

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD if x_BTD.is_meta or bool(x_BTD.sum() < 1e30) else -x_BTD, context)


class SizesBadly(Pool):
    @classmethod
    def size(cls, config: MixerConfig, dim: int, length: int, budget: int) -> MixerConfig:
        near = super().size(config, dim, length, budget)
        assert isinstance(near, PoolConfig)
        assert near.width is not None
        return (
            near
            if isinstance(config, PoolConfig) and config.width
            else near.model_copy(update={"width": near.width - 4})
        )


class DiffersFromItsReference(Pool):
    def plain_forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD, context) * (1 + 1e-6)


class TouchesMeta(Pool):
    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        return super().forward(x_BTD if float(x_BTD.abs().max()) < 1e30 else -x_BTD, context)


BROKEN: dict[type[Pool], str] = {
    LeaksFuture: "prefix",
    LeaksAtABlock: "prefix",
    LeaksByScale: "prefix",
    IgnoresLastToken: "reach",
    IgnoresMask: "padding",
    MixesRows: "rows",
    MiscountsParameters: "parameters",
    HidesNumbersInABuffer: "parameters",
    HidesNumbersInAFrozenParameter: "parameters",
    MiscountsFlops: "flops",
    MiscountsState: "state-size",
    DeclaresGrowingState: "state-size",
    DeadParameter: "live-parameters",
    StepDrifts: "step",
    StepDriftsLate: "step",
    Drops: "deterministic",
    Overflows: "range",
    WrongGradient: "gradcheck",
    AcceptsAnything: "config",
    KeepsAParameter: "reset",
    UnsavedTable: "state-dict",
    NeedsEvenLength: "shape",
    ReturnsFp32: "half",
    StepIsCoarseInHalf: "half",
    NeedsARow: "empty",
    BranchesOnValues: "export",
    SizesBadly: "nearest",
    DiffersFromItsReference: "naive",
    TouchesMeta: "meta",
}
