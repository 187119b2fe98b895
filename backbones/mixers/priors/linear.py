"""Linear attention as a prior: weights from positive features `φ(z) = elu(z) + 1` and, for three of the four priors,
the decay since the token.

    p_t(i) ∝ Σ_c φ(q_t)_c φ(k_i)_c Π_{i<s≤t} a_{s,c}

`linear` has no decay (arXiv 2006.16236), `gla` one decay per key channel (arXiv 2312.06635), `simple-gla` one per head,
`retention` fixed decays (arXiv 2307.08621). Time and memory grow linearly with T, the decoding state is constant.
Without causality `linear` reads all tokens at once; of the others half of the heads scan forward and half from the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid, relu

from backbones.mixers.base import Capabilities, Context, MixerConfig
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import Prior, Widths, at_least_fp32, head_width, normal_, running
from backbones.mixers.priors.decays import fixed_log_decays
from backbones.mixers.priors.host_mixer import HostMixer
from backbones.mixers.registry import register
from kernels.decoding.layer import Decays, Gates, layer_step, to_logarithms
from kernels.linear.exact import empty_state, exact_step
from kernels.linear.free_energy import linear_free_energy, linear_read
from kernels.linear.weights import LinearWeights

RANK = 16  # of gla's decay projection
SLOWNESS = 16  # a = sigmoid(…)^(1/16)


def log_phi(z: Tensor) -> Tensor:
    """`log(elu(z) + 1)`, without elu's rounding: z where z < 0, log1p(z) elsewhere. One of the two terms is 0, so that
    their difference is exact. On a CPU `where` takes four times as long, and `clamp` twice, which uses it backward.
    """
    return relu(z).log1p() - relu(-z)


class LinearPrior(Prior):
    """`linear`, and the base class of the priors that decay."""

    decays = False
    fused_step = True
    grain = 2

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        if self.decays and not causal and widths.heads < 2:
            raise MixerError(
                "a prior with decays that is not causal scans half of its heads from the end: give at least 2 heads"
            )
        self.forward_heads = widths.heads - widths.heads // 2

    @staticmethod
    def projected(widths: Widths) -> tuple[int, ...]:
        return widths.heads * widths.key, widths.heads * widths.key

    def log_decay(self, x_BTD: Tensor) -> Tensor | None:
        """None, `[B, T, H, 1]` or `[B, T, H, k]`, ≤ 0."""
        return None

    def prepare(self, x_BTD: Tensor, keys: Sequence[Tensor], context: Context, offset: int = 0) -> LinearWeights:
        heads = (self.widths.heads, self.widths.key)
        log_q, log_k = (log_phi(at_least_fp32(z).unflatten(-1, heads)) for z in keys)
        return LinearWeights.of(log_q, log_k, self.log_decay(x_BTD), context.mask_BT)

    def read(self, weights: LinearWeights, v_BTHw: Tensor) -> Tensor:
        return self._by_direction(lambda w, causal, v: (linear_read(w, v, causal),), weights, at_least_fp32(v_BTHw))[0]

    def log_read(self, weights: LinearWeights, u_BTHw: Tensor) -> Tensor:
        return self.free_energy(weights, u_BTHw, u_BTHw.new_ones(u_BTHw.shape[2:]))[1]

    def free_energy(self, weights: LinearWeights, v_BTHd: Tensor, beta_Hd: Tensor) -> tuple[Tensor, Tensor]:
        beta_BTHd = beta_Hd.expand(1, 1, *beta_Hd.shape)

        def run(w: LinearWeights, causal: bool, v: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
            return linear_free_energy(w, v, beta[0, 0], causal)

        mu, F = self._by_direction(run, weights, at_least_fp32(v_BTHd), beta_BTHd)
        return mu, F

    def _by_direction(
        self, run: Callable[..., tuple[Tensor, ...]], weights: LinearWeights, *xs: Tensor
    ) -> tuple[Tensor, ...]:
        """`run(weights, causal, *xs)`; with decays and without causality, once per direction on half of the heads."""
        if self.causal or not self.decays:
            return run(weights, self.causal, *xs)
        first, second = slice(0, self.forward_heads), slice(self.forward_heads, None)
        ahead = run(weights.heads(first), True, *(x[:, :, first] for x in xs))
        back = run(weights.heads(second).flipped(), True, *(x[:, :, second].flip(1) for x in xs))
        return tuple(torch.cat((a, b.flip(1)), dim=2) for a, b in zip(ahead, back, strict=True))

    def init_state(self, batch: int, max_len: int, like: Tensor, free_energy: bool) -> dict[str, Tensor]:
        w = self.widths
        return empty_state(batch, w.heads, w.key, w.value, running(like), free_energy)

    def decays_of(self, x_BD: Tensor) -> Decays | None:
        """The decays of one token for the compiled step."""
        return None

    def layer_step(self, x_BD: Tensor, z_BC: Tensor, state: dict[str, Tensor], gates: Gates | None) -> Tensor | None:
        return layer_step(state, z_BC, self.decays_of(x_BD), gates)

    def step(
        self, weights: LinearWeights, v_B1Hd: Tensor, state: dict[str, Tensor], position: int, beta_Hd: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        to_logarithms(state)
        v = at_least_fp32(v_B1Hd)
        q, k, v_BH1d = (x.transpose(1, 2) for x in (weights.log_q, weights.log_k, v))
        decay = None if weights.log_decay is None else weights.log_decay.transpose(1, 2)
        u = None if beta_Hd is None else v_BH1d * beta_Hd[:, None]
        mu, log_mean, after = exact_step(state, q, k, decay, v_BH1d, u)
        state.update(after)
        if beta_Hd is None or log_mean is None:
            return mu.transpose(1, 2), None
        return mu.transpose(1, 2), log_mean.transpose(1, 2) / beta_Hd

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """The outer product that enters the state and the product that reads it, for values (twice under FEM) and
        ones.
        """
        columns = (2 if free_energy else 1) * widths.value + 1
        return 2 * 2 * widths.heads * widths.key * columns

    @staticmethod
    def state_numbers(widths: Widths, length: int, free_energy: bool) -> int:
        return widths.heads * widths.key * ((2 if free_energy else 1) * widths.value + 1)


class GlaPrior(LinearPrior):
    """`a_s = sigmoid(W_a x_s + b)^{1/16}` per key channel, W_a of rank 16."""

    decays = True

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        self.w_down = nn.Parameter(torch.empty(RANK, widths.dim))
        self.w_up = nn.Parameter(torch.empty(widths.heads * widths.key, RANK))
        self.bias = nn.Parameter(torch.empty(widths.heads * widths.key))

    def reset_parameters(self) -> None:
        normal_(self.w_down)
        normal_(self.w_up)
        nn.init.zeros_(self.bias)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        logits = at_least_fp32(linear(linear(x_BTD, self.w_down), self.w_up)) + self.bias
        return (logsigmoid(logits) / SLOWNESS).unflatten(-1, (self.widths.heads, self.widths.key))

    def decays_of(self, x_BD: Tensor) -> Decays:
        return Decays(linear(linear(x_BD, self.w_down), self.w_up), self.bias, SLOWNESS)

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        keys = widths.heads * widths.key
        return RANK * (widths.dim + keys) + keys

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """The recurrence, and the decay's projections."""
        return LinearPrior.flops(widths, length, free_energy) + 2 * RANK * (widths.dim + widths.heads * widths.key)


class SimpleGlaPrior(LinearPrior):
    """`a_s = sigmoid(W_a x_s + b)^{1/16}`, one decay per head."""

    decays = True

    def __init__(self, widths: Widths, causal: bool) -> None:
        super().__init__(widths, causal)
        self.weight = nn.Parameter(torch.empty(widths.heads, widths.dim))
        self.bias = nn.Parameter(torch.empty(widths.heads))

    def reset_parameters(self) -> None:
        normal_(self.weight)
        nn.init.zeros_(self.bias)

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        return (logsigmoid(at_least_fp32(linear(x_BTD, self.weight)) + self.bias) / SLOWNESS)[..., None]

    def decays_of(self, x_BD: Tensor) -> Decays:
        return Decays(linear(x_BD, self.weight), self.bias, SLOWNESS)

    @staticmethod
    def parameters_of(widths: Widths) -> int:
        return widths.heads * (widths.dim + 1)

    @staticmethod
    def flops(widths: Widths, length: int, free_energy: bool) -> int:
        """The recurrence, and the decay's projection."""
        return LinearPrior.flops(widths, length, free_energy) + 2 * widths.heads * widths.dim


class RetentionPrior(LinearPrior):
    """Fixed decays `a = 1 − 2^{−5−h}`, with h = 0, 1, … over the heads of one direction."""

    decays = True

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        heads = self.widths.heads
        log_a_H = fixed_log_decays(heads, heads if self.causal else self.forward_heads, at_least_fp32(x_BTD))
        return log_a_H[:, None].expand(*x_BTD.shape[:2], heads, 1)

    def decays_of(self, x_BD: Tensor) -> Decays:
        return Decays(fixed_log_decays(self.widths.heads, self.widths.heads, at_least_fp32(x_BD)))


class LinearHost(HostMixer):
    """A linear prior as a mixer."""

    capabilities = Capabilities(constant_state=True)


@register("linear")
class Linear(LinearHost):
    Host = LinearPrior
    paper = "arXiv 2006.16236"
    summary = "linear attention, host prior: features elu + 1, normalised"


class GlaConfig(MixerConfig):
    """Keys are narrower than values, which makes up for the decay's parameters."""

    d_k: int | None = Field(
        default=None, ge=1, description="query/key width per head; solved for the budget when not given"
    )


@register("gla")
class Gla(LinearHost):
    Config = GlaConfig
    Host = GlaPrior
    paper = "arXiv 2312.06635"
    summary = "gated linear attention, host prior: one decay per key channel, normalised"

    @classmethod
    def widths_of(cls, config: MixerConfig, dim: int) -> Widths:
        assert isinstance(config, GlaConfig)
        if config.d_k is None:
            raise MixerError("gla: width d_k is not given; set it, or solve it for a budget (Mixer.size)")
        return Widths(dim, config.heads, config.d_k, head_width(dim, config.heads))

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        """Key widths per head in steps of 4 (8 from D = 256 on), widest first."""
        assert isinstance(config, GlaConfig)
        step = 4 if dim < 256 else 8
        widest = 2 * head_width(dim, config.heads) // step * step
        for d_k in [config.d_k] if config.d_k else range(max(widest, step), 0, -step):
            yield config.model_copy(update={"d_k": d_k})


@register("simple-gla")
class SimpleGla(LinearHost):
    Host = SimpleGlaPrior
    paper = "arXiv 2312.06635"
    summary = "gated linear attention, host prior: one decay per head, normalised"


@register("retention")
class Retention(LinearHost):
    Host = RetentionPrior
    paper = "arXiv 2307.08621"
    summary = "retention, host prior: fixed decays, normalised"
