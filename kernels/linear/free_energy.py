"""Mean and free energy (arXiv 2602.07160) under a linear prior: `p_t(i) ∝ Σ_c φ(q_t)_c φ(k_i)_c e^{G_tc − G_ic}`.

Two implementations, as for softmax: one pass of the chunked sums over `[v, w, 1]`, where features and values have an
ordinary range (`log φ(k) ≥ −20`, |βv| as in `kernels.numerics.exponentials`); the log domain for rows that see anything
else.

Shape letters: B sequences, T tokens, H heads, k and d channels per head of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.linear.exact import exact_read
from kernels.linear.sums import decayed_sums
from kernels.numerics.exponentials import first_row, in_range, one_pass, out_of_range, replaced
from kernels.numerics.opaque import opaque
from kernels.numerics.precision import full_precision

FAINT = -20.0  # log φ(k) below which a product of features and exp(−RANGE) may underflow
HIDDEN = -1e9  # log φ(k) of padding


@dataclass(frozen=True)
class LinearWeights:
    """log φ(q) and log φ(k) `[B, T, H, k]`, log-decays None, `[B, T, H, 1]` or `[B, T, H, k]`, mask `[B, T]` (True at
    real tokens).
    """

    log_q: Tensor
    log_k: Tensor
    log_decay: Tensor | None
    mask_BT: Tensor | None

    @classmethod
    def of(cls, log_q: Tensor, log_k: Tensor, log_decay: Tensor | None, mask_BT: Tensor | None) -> LinearWeights:
        """Weights whose padding is hidden and does not decay.

        Args:
            log_q: log φ(q) `[B, T, H, k]`. Its scale cancels: the largest feature of a query becomes 1.
            log_k: log φ(k) `[B, T, H, k]`.
            log_decay: log-decays ≤ 0 `[B, T, H, 1]` or `[B, T, H, k]`; None for no decay.
            mask_BT: bool `[B, T]`, True at real tokens; None if all are.

        Returns:
            The weights of all heads.
        """
        if mask_BT is not None:
            hidden = ~mask_BT[:, :, None, None]
            log_k = log_k.masked_fill(hidden, HIDDEN)
            log_decay = None if log_decay is None else log_decay.masked_fill(hidden, 0.0)
        return cls(log_q - log_q.detach().amax(-1, keepdim=True), log_k, log_decay, mask_BT)

    def heads(self, part: slice) -> LinearWeights:
        """Some of the heads.

        Args:
            part: which heads.

        Returns:
            Their weights.
        """
        log_decay = None if self.log_decay is None else self.log_decay[:, :, part]
        return replace(self, log_q=self.log_q[:, :, part], log_k=self.log_k[:, :, part], log_decay=log_decay)

    def flipped(self) -> LinearWeights:
        """The weights with the tokens in reverse order.

        Returns:
            Weights whose token t is token T − 1 − t of these.
        """
        log_decay, mask_BT = (None if x is None else x.flip(1) for x in (self.log_decay, self.mask_BT))
        return LinearWeights(self.log_q.flip(1), self.log_k.flip(1), log_decay, mask_BT)

    def tensors(self) -> list[Tensor]:
        """For an opaque operation, together with `present`.

        Returns:
            log_q, log_k, and what there is of decays and mask.
        """
        return [x for x in (self.log_q, self.log_k, self.log_decay, self.mask_BT) if x is not None]

    def present(self) -> list[int]:
        """Which of the optional tensors there are.

        Returns:
            1 or 0 for the decays, 1 or 0 for the mask.
        """
        return [int(self.log_decay is not None), int(self.mask_BT is not None)]

    @classmethod
    def from_tensors(cls, tensors: list[Tensor], present: list[int]) -> LinearWeights:
        """The inverse of `tensors()` and `present()`.

        Args:
            tensors: the result of `tensors()`.
            present: the result of `present()`.

        Returns:
            The weights.
        """
        return cls(tensors[0], tensors[1], tensors[2] if present[0] else None, tensors[-1] if present[1] else None)

    def faint(self) -> Tensor:
        """Real tokens with a feature too small for the one pass.

        Returns:
            bool `[B, T, H]`.
        """
        faint = (self.log_k.detach() < FAINT).any(-1)
        return faint if self.mask_BT is None else faint & self.mask_BT[..., None]

    def ordinary(self) -> bool:
        """Whether every token's features are large enough for the one pass.

        Returns:
            True if so, and on the meta device.
        """
        return self.log_k.is_meta or not bool(self.faint().any())


def linear_read(weights: LinearWeights, v_BTHw: Tensor, causal: bool) -> Tensor:
    """Mean E_p[v] under linear attention.

    Args:
        weights: the prior.
        v_BTHw: values `[B, T, H, w]`, fp32 or fp64.
        causal: whether row t sees keys i ≤ t only; otherwise there are no decays.

    Returns:
        `[B, T, H, w]`.
    """
    return _read_opaquely([*weights.tensors(), v_BTHw], [*weights.present(), int(causal)])[0]


def linear_free_energy(weights: LinearWeights, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Mean and free energy under linear attention.

    Args:
        weights: the prior.
        v_BTHd: values `[B, T, H, d]`, fp32 or fp64, any finite size.
        beta_Hd: inverse temperatures β > 0 `[H, d]`.
        causal: whether row t sees keys i ≤ t only; otherwise there are no decays.

    Returns:
        `E_p[v]` and `F = (1/β) log E_p[exp(βv)]`, `[B, T, H, d]` each.
    """
    mu, F = _free_energy_opaquely([*weights.tensors(), v_BTHd, beta_Hd], [*weights.present(), int(causal)])
    return mu, F


@full_precision
def _linear_read(weights: LinearWeights, v_BTHw: Tensor, causal: bool) -> Tensor:
    v_BTHw = _masked(weights, v_BTHw)
    fast = _mean(weights, v_BTHw, causal)
    if weights.ordinary():
        return fast
    exact, _ = exact_read(weights.log_q, weights.log_k, weights.log_decay, v_BTHw, None, causal)
    return replaced(fast, exact, first_row(weights.faint(), causal))


@full_precision
def _linear_free_energy(weights: LinearWeights, v_BTHd: Tensor, beta_Hd: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    v_BTHd = _masked(weights, v_BTHd)
    ordinary = weights.ordinary() and in_range(v_BTHd, beta_Hd)
    mu, F = one_pass(lambda x: _mean(weights, x, causal), v_BTHd, beta_Hd, clamped=not ordinary)
    if ordinary:
        return mu, F
    first = first_row(weights.faint() | out_of_range(v_BTHd, beta_Hd).any(-1), causal)
    exact, log_mean = exact_read(weights.log_q, weights.log_k, weights.log_decay, v_BTHd, v_BTHd * beta_Hd, causal)
    assert log_mean is not None
    return replaced(mu, exact, first), replaced(F, log_mean / beta_Hd, first)


_read_opaquely = opaque(
    "linear_read",
    lambda ts, options: [_linear_read(LinearWeights.from_tensors(ts[:-1], options), ts[-1], bool(options[2]))],
    lambda ts: [torch.empty(ts[-1].shape, dtype=ts[-1].dtype, device=ts[-1].device)],
)
_free_energy_opaquely = opaque(
    "linear_free_energy",
    lambda ts, options: _linear_free_energy(
        LinearWeights.from_tensors(ts[:-2], options), ts[-2], ts[-1], bool(options[2])
    ),
    lambda ts: [torch.empty(ts[-2].shape, dtype=ts[-2].dtype, device=ts[-2].device) for _ in range(2)],
)


def _masked(weights: LinearWeights, v: Tensor) -> Tensor:
    return v if weights.mask_BT is None else v.masked_fill(~weights.mask_BT[:, :, None, None], 0.0)


def _mean(weights: LinearWeights, v: Tensor, causal: bool) -> Tensor:
    """The weighted mean, with features below FAINT raised to it. Rows of padding give ones."""
    q, k = weights.log_q.exp(), weights.log_k.clamp(min=FAINT).exp()
    if weights.mask_BT is not None:
        k = k.masked_fill(~weights.mask_BT[:, :, None, None], 0.0)
    values = torch.cat((v, torch.ones_like(v[..., :1])), dim=-1)
    if causal:
        sums = decayed_sums(q, k, values, weights.log_decay)
    else:
        sums = torch.einsum("bthk,bhkw->bthw", q, torch.einsum("bthk,bthw->bhkw", k, values))
    if weights.mask_BT is not None:
        sums = torch.where(weights.mask_BT[:, :, None, None], sums, 1.0)
    return sums[..., :-1] / sums[..., -1:]
