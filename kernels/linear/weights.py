"""The weights of a linear prior: log φ(q), log φ(k), the decays, and which tokens are padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from kernels.numerics.exponentials import NARROW, Reach

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

    def faint(self, reach: Reach = NARROW) -> Tensor:
        """Real tokens with a feature too small for one pass.

        Args:
            reach: of the pass.

        Returns:
            bool `[B, T, H]`.
        """
        faint = (self.log_k.detach() < reach.faint).any(-1)
        return faint if self.mask_BT is None else faint & self.mask_BT[..., None]

    def ordinary(self) -> bool:
        """Whether every token's features are large enough for one pass.

        Returns:
            True if so, and on the meta device.
        """
        return self.log_k.is_meta or not bool(self.faint().any())

    def only(self, b: Tensor, h: Tensor) -> LinearWeights:
        """Some heads of some sequences, each as a sequence of its own with one head.

        Args:
            b: the sequence of each `[N]`.
            h: its head `[N]`.

        Returns:
            The weights of N sequences.
        """
        log_q, log_k, log_decay = (
            None if x is None else only(x, b, h) for x in (self.log_q, self.log_k, self.log_decay)
        )
        assert log_q is not None
        assert log_k is not None
        return LinearWeights(log_q, log_k, log_decay, None if self.mask_BT is None else self.mask_BT[b])

    def double(self) -> LinearWeights:
        """The weights in fp64.

        Returns:
            Weights whose features and decays are fp64.
        """
        log_decay = None if self.log_decay is None else self.log_decay.double()
        return replace(self, log_q=self.log_q.double(), log_k=self.log_k.double(), log_decay=log_decay)


def only(x_BTHc: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """Head `h` of sequence `b`, for N pairs.

    Args:
        x_BTHc: any tensor of this shape.
        b: the sequence of each `[N]`.
        h: its head `[N]`.

    Returns:
        `[N, T, 1, c]`.
    """
    return x_BTHc.transpose(1, 2)[b, h][:, :, None]
