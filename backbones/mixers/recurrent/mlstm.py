"""mLSTM, the layer of xLSTM-7B (arXiv 2405.04517, 2503.13427): a matrix memory with an exponential input gate.

    q, k = W_q x, W_k x  [D/2],   v, o = W_v x, W_o x  [D],   i = cap(W_i x + b_i),  f = cap(W_f x + b_f)  per head
    C_t = σ(f_t) C_{t−1} + e^{i_t} k_t v_tᵀ/√d_k,     n_t = σ(f_t) n_{t−1} + e^{i_t} k_t/√d_k
    h_t = C_tᵀ q_t / max(|n_t·q_t|, 1),               y = W_out( σ(o) ⊙ LN_head(h) ⊙ gain ),    cap(z) = 15 tanh(z/15)

4D² + 2H(D + 1) + D parameters. The cap keeps `e^i` below 4·10⁶, so no running maximum is needed: the published form
with one is the same function. Both gates start as biases alone. Not causal: half of the heads read from the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, logsigmoid

from backbones.mixers.base import Capabilities, Context, Cost, Mixer, MixerConfig, State
from backbones.mixers.errors import MixerError
from backbones.mixers.priors.base import at_least_fp32, normal_, projected_out, running
from backbones.mixers.recurrent.directions import both_ways, heads_ahead
from backbones.mixers.registry import register
from kernels.decoding.memory import Around, compiled_memory_step, memory_step
from kernels.decoding.running import steps_with
from kernels.linear.sums import decayed_sums

CAP = 15.0  # of both gates before their exponential and sigmoid
NORM_EPS = 1e-6
FIRST_FORGET_BIAS, LAST_FORGET_BIAS = 3.0, 6.0
INPUT_BIAS_STD = 0.1


@register("mlstm")
class MLstm(Mixer):
    """A matrix memory per head, with a normaliser that is bounded from below."""

    Config = MixerConfig
    capabilities = Capabilities(constant_state=True)
    paper = "arXiv 2405.04517"
    summary = "mLSTM layer of xLSTM-7B: a matrix memory with an exponential input gate"
    no_weight_decay = frozenset({"b_i", "b_f"})

    def __init__(self, config: MixerConfig, dim: int, length: int) -> None:
        super().__init__(config, dim, length)
        H, self.key, self.value = config.heads, *self.widths_of(config, dim)
        self.ahead = heads_ahead(H, config.causal)
        self.splits = (H * self.key, H * self.key, dim, dim)
        self.in_proj = nn.Linear(dim, sum(self.splits), bias=False)
        self.w_gates = nn.Parameter(torch.empty(2 * H, dim))
        self.b_i, self.b_f = nn.Parameter(torch.empty(H)), nn.Parameter(torch.empty(H))
        self.gain = nn.Parameter(torch.empty(dim))
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    @staticmethod
    def widths_of(config: MixerConfig, dim: int) -> tuple[int, int]:
        """(d_k, d_v), D/2H and D/H."""
        if dim % (2 * config.heads):
            raise MixerError(f"heads={config.heads} does not divide half of the width {dim}; choose another number")
        return dim // 2 // config.heads, dim // config.heads

    def reset_parameters(self) -> None:
        normal_(self.in_proj.weight)
        normal_(self.out_proj.weight)
        nn.init.zeros_(self.w_gates)
        nn.init.normal_(self.b_i, std=INPUT_BIAS_STD)
        with torch.no_grad():
            self.b_f.copy_(torch.linspace(FIRST_FORGET_BIAS, LAST_FORGET_BIAS, self.config.heads))
        nn.init.ones_(self.gain)

    def _inputs(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, the weighted k, `[v, 1]` per head, log σ(f) `[B, T, H]`, and o `[B, T, D]`, all in fp32 at least."""
        H = self.config.heads
        # in fp32, not rounded to a half-precision input's dtype: a normed read of one token turns with its score's sign
        projected = linear(at_least_fp32(x_BTD), at_least_fp32(self.in_proj.weight))
        q, k, v, o = projected.split(self.splits, dim=-1)
        q, k, v = (z.unflatten(-1, (H, -1)) for z in (q, k, v))
        weight, log_f = self._gates(x_BTD)
        k = k * weight[..., None].to(k.dtype)
        return q, k, torch.cat((v, torch.ones_like(v[..., :1])), dim=-1), log_f.to(q.dtype), o

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """e^i/√d_k and log σ(f), `[…, H]` each, in fp32 at least."""
        i, f = (at_least_fp32(z) for z in (x @ self.w_gates.to(x.dtype).T).chunk(2, dim=-1))
        return _capped(i + self.b_i).exp() * self.key**-0.5, logsigmoid(_capped(f + self.b_f))

    def _out(self, sums_BTHw: Tensor, o_BTD: Tensor) -> Tensor:
        h = sums_BTHw[..., :-1] / sums_BTHw[..., -1:].abs().clamp(min=1.0)
        normed_BTD = layer_norm(h, (self.value,), eps=NORM_EPS).flatten(2) * self.gain.to(h.dtype)
        return projected_out(self.out_proj, torch.sigmoid(at_least_fp32(o_BTD)) * normed_BTD)

    def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
        q, k, values, log_f, o = self._inputs(x_BTD)
        if context.mask_BT is not None:
            hidden = ~context.mask_BT[..., None]
            k, log_f = k.masked_fill(hidden[..., None], 0.0), log_f.masked_fill(hidden, 0.0)
        return self._out(both_ways(_sums, self.ahead, self.config.heads, q, k, values, log_f[..., None]), o)

    def init_state(self, batch: int, max_len: int) -> State:
        self.require_causal()
        shape = (batch, self.config.heads, self.key, self.value + 1)
        return State({"c_BHkw": running(self.out_proj.weight).new_zeros(shape)})

    def step(self, x_BD: Tensor, state: State, context: Context = Context()) -> tuple[Tensor, State]:
        y_BV = self._compiled_step(x_BD, state.tensors["c_BHkw"])
        if y_BV is not None:
            return projected_out(self.out_proj, y_BV), State(state.tensors, state.position + 1)
        q, k, values, log_f, o = self._inputs(x_BD[:, None])
        token = q[:, 0], k[:, 0], values[:, 0], log_f[:, 0, :, None]
        sums_BHw, c_BHkw = memory_step(state.tensors["c_BHkw"], *token)
        return self._out(sums_BHw[:, None], o)[:, 0], State({"c_BHkw": c_BHkw}, state.position + 1)

    def _compiled_step(self, x_BD: Tensor, memory_BHkw: Tensor) -> Tensor | None:
        """What the output projection reads `[B, D]`, in one operation; None without the compiled library."""
        if not steps_with((memory_BHkw,), x_BD, self.in_proj.weight, self.b_i):
            return None
        *token, o_BD = linear(x_BD, self.in_proj.weight).split(self.splits, dim=-1)
        q, k, v = (z.unflatten(-1, (self.config.heads, -1)) for z in token)
        weights_BH, log_f_BH = self._gates(x_BD)
        around = Around(gate_BE=o_BD, gain=self.gain, normaliser=True, norm="layer", gated="sigmoid", eps=NORM_EPS)
        y_BHw = compiled_memory_step(memory_BHkw, q, k * weights_BH[..., None], v, log_f_BH[..., None], None, around)
        return None if y_BHw is None else y_BHw.flatten(1)

    @classmethod
    def candidates(cls, config: MixerConfig, dim: int, length: int) -> Iterable[MixerConfig]:
        cls.widths_of(config, dim)
        return [config]

    @classmethod
    def cost(cls, config: MixerConfig, dim: int, length: int) -> Cost:
        """FLOPs: 2 per matrix weight and token; what enters and what reads the memory, 2 per entry each."""
        H, (key, value) = config.heads, cls.widths_of(config, dim)
        matrices, memory = dim * (2 * H * key + 3 * dim + 2 * H), H * key * (value + 1)
        return Cost(matrices + 2 * H + dim, 2 * matrices + 4 * memory, 4 * memory if config.causal else 0)


def _sums(part: slice, *tensors: Tensor) -> Tensor:
    return decayed_sums(*(x[:, :, part] for x in tensors))


def _capped(z: Tensor) -> Tensor:
    return CAP * torch.tanh(z / CAP)
