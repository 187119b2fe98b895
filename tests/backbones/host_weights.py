"""The weights of every host prior by fp64 loops over the formulas, as the reference of the tests of priors and FEM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, logsigmoid, softplus

from backbones.mixers.base import Context
from backbones.mixers.priors.aft import AftPrior
from backbones.mixers.priors.base import Prior, Widths
from backbones.mixers.priors.forgetting import ForgettingPrior
from backbones.mixers.priors.linear import GlaPrior, LinearPrior, RetentionPrior, SimpleGlaPrior
from backbones.mixers.priors.softmax import SoftmaxPrior
from backbones.mixers.priors.ssm import SsmPrior

D, H, K, V = 8, 2, 4, 4
HOSTS: dict[str, type[Prior]] = {
    "softmax": SoftmaxPrior,
    "fox": ForgettingPrior,
    "linear": LinearPrior,
    "gla": GlaPrior,
    "simple-gla": SimpleGlaPrior,
    "retention": RetentionPrior,
    "aft": AftPrior,
    "ssm": SsmPrior,
}


@dataclass(frozen=True)
class Case:
    """A host prior with its inputs."""

    name: str
    prior: Prior
    x: Tensor
    keys: tuple[Tensor, ...]
    v: Tensor
    mask: Tensor | None = None

    @property
    def causal(self) -> bool:
        return self.prior.causal

    def weights(self) -> Any:
        return self.prior.prepare(self.x, self.keys, Context(mask_BT=self.mask))

    def map(self, change: Callable[[Tensor], Tensor]) -> Case:
        """The same prior on changed tokens."""
        return replace(self, x=change(self.x), keys=tuple(change(k) for k in self.keys), v=change(self.v))

    def log_weights(self) -> Tensor:
        """log p_t(i) `[B, T, T, H, d]` in fp64."""
        double = self.map(Tensor.double)
        logits = LOGITS[self.name](double)
        T = logits.shape[1]
        sees = torch.ones(T, T, dtype=torch.bool)
        if self.causal:
            sees = sees.tril()
        elif self.name not in ("softmax", "fox", "linear"):
            ahead = torch.arange(H * V).view(H, V) < (H * V + 1) // 2
            sees = torch.where(ahead, sees.tril()[..., None, None], sees.triu()[..., None, None])
        if sees.dim() == 2:
            sees = sees[..., None, None]
        if self.mask is not None:
            sees = sees & self.mask[:, None, :, None, None]
        return logits.masked_fill(~sees, -torch.inf).log_softmax(2)


def case(
    name: str,
    causal: bool = True,
    tokens: int = 9,
    *,
    seed: int = 0,
    logits: float = 1.0,
    values: float = 1.0,
    dtype: torch.dtype = torch.float64,
    batch: int = 2,
) -> Case:
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    widths = Widths(D, H, K, V)
    prior = HOSTS[name](widths, causal)
    prior.reset_parameters()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    keys = tuple(logits * normal(batch, tokens, width) for width in prior.projected(widths))
    return Case(name, prior.to(dtype), logits * normal(batch, tokens, D), keys, values * normal(batch, tokens, H, V))


def spread(log_weight: Tensor) -> Tensor:
    """`[B, T, T, H]` repeated for every channel of the head."""
    return log_weight[..., None].expand(*log_weight.shape, V)


def softmax_logits(c: Case) -> Tensor:
    q, k = (z.unflatten(-1, (H, K)) for z in c.keys)
    T = q.shape[1]

    def rotated(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for t in range(T):
            for pair in range(0, K, 2):
                angle = torch.tensor(t / 10_000 ** (pair / K), dtype=torch.float64)
                a, b = x[:, t, :, pair], x[:, t, :, pair + 1]
                out[:, t, :, pair] = a * angle.cos() - b * angle.sin()
                out[:, t, :, pair + 1] = a * angle.sin() + b * angle.cos()
        return out

    return spread(torch.einsum("bthk,bihk->btih", rotated(q), rotated(k)) / K**0.5)


def forgetting_logits(c: Case) -> Tensor:
    q, k = (z.unflatten(-1, (H, K)) for z in c.keys[:2])
    prior: Any = c.prior.double()
    gates = logsigmoid(c.keys[2] + prior.b_f)
    if c.mask is not None:  # padding doesn't decay
        gates = gates * c.mask[..., None]
    T, out = q.shape[1], torch.einsum("bthk,bihk->btih", q, k) / K**0.5
    for t in range(T):
        for i in range(T):  # the gates of the tokens after the first of the two, up to the last
            out[:, t, i] += gates[:, min(t, i) + 1 : max(t, i) + 1].sum(1)
    return spread(out)


def log_phi(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.log(z.clamp(min=0) + 1), z)


def log_decays(c: Case) -> Tensor:
    """`[B, T, H, K]`."""
    prior: Any = c.prior.double()
    B, T = c.x.shape[:2]
    if c.name == "linear":
        return torch.zeros(B, T, H, K, dtype=torch.float64)
    if c.name == "gla":
        return (logsigmoid(linear(linear(c.x, prior.w_down), prior.w_up) + prior.bias) / 16).unflatten(-1, (H, K))
    if c.name == "simple-gla":
        return (logsigmoid(linear(c.x, prior.weight) + prior.bias) / 16)[..., None].expand(B, T, H, K)
    heads = range(H) if c.causal else [h % ((H + 1) // 2) for h in range(H)]
    return torch.tensor([1 - 2.0 ** (-5 - h) for h in heads], dtype=torch.float64).log()[:, None].expand(B, T, H, K)


def linear_logits(c: Case) -> Tensor:
    q, k = (log_phi(z.unflatten(-1, (H, K))) for z in c.keys)
    a, T = log_decays(c), q.shape[1]
    if c.mask is not None:  # padding doesn't decay
        a = a * c.mask[..., None, None]
    out = torch.full((q.shape[0], T, T, H), -torch.inf, dtype=torch.float64)
    for t in range(T):
        since = torch.zeros_like(a[:, 0])
        for i in range(t, -1, -1):  # Π_{i<s≤t} a_s
            out[:, t, i] = (q[:, t] + k[:, i] + since).logsumexp(-1)
            since = since + a[:, i]
        since = torch.zeros_like(a[:, 0])
        for i in range(t, T):  # from the end: Π_{t≤s<i} a_s
            if i > t:
                out[:, t, i] = (q[:, t] + k[:, i] + since).logsumexp(-1)
            since = since + a[:, i]
    return spread(out)


def aft_logits(c: Case) -> Tensor:
    k = c.keys[1].unflatten(-1, (H, V))
    return k[:, None].expand(-1, k.shape[1], *k.shape[1:])


def ssm_logits(c: Case) -> Tensor:
    prior: Any = c.prior.double()
    T = c.x.shape[1]
    z = linear(linear(c.x, prior.w_down), prior.w_up) + prior.bias
    delta = softplus(z) if c.mask is None else softplus(z) * c.mask[..., None]
    # log softplus(z) is z to 1e-7 below −15 and never −inf
    log_delta, log_b, log_c = (
        torch.where(y < -30, y, softplus(y.clamp(min=-30)).log())
        for y in (z, *linear(c.x, prior.w_states).chunk(2, -1))
    )
    A, log_skip = -prior.a_log.exp(), softplus(prior.w_skip).log()
    out = torch.full((c.x.shape[0], T, T, H * V), -torch.inf, dtype=torch.float64)
    for t in range(T):
        for order in (range(t, -1, -1), range(t, T)):
            since = torch.zeros(c.x.shape[0], *A.shape, dtype=torch.float64)
            for step, i in enumerate(order):
                # towards the past the decays are those of i+1 … t, towards the future those of t … i−1
                entered = (log_c[:, t, :, None] + since + log_b[:, i, :, None]).logsumexp(1) + log_delta[:, i]
                out[:, t, i] = torch.logaddexp(entered, log_skip) if step == 0 else entered
                since = since + delta[:, i, None] * A
    return out.unflatten(-1, (H, V))


LOGITS: dict[str, Callable[[Case], Tensor]] = {
    "softmax": softmax_logits,
    "fox": forgetting_logits,
    "linear": linear_logits,
    "gla": linear_logits,
    "simple-gla": linear_logits,
    "retention": linear_logits,
    "aft": aft_logits,
    "ssm": ssm_logits,
}


def mean(log_p: Tensor, v: Tensor) -> Tensor:
    """Σ_i p_t(i) v_i."""
    return (log_p.exp() * v.double()[:, None]).sum(2)


def log_mean(log_p: Tensor, u: Tensor) -> Tensor:
    """log Σ_i p_t(i) exp(u_i). Where every u is tiny the sum cancels even in fp64: there, by the mean of expm1."""
    u = u.double()[:, None]
    return (log_p.exp() * u.expm1()).sum(2).log1p() if float(u.abs().max()) < 1e-2 else (log_p + u).logsumexp(2)
