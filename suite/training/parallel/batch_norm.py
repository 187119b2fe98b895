"""Batch norm over the global batch: each rank normalises by the statistics of all ranks' rows.

`torch.nn.SyncBatchNorm` does the same on GPUs only, and replaces layers whose class has its own `forward`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm

#: A tensor → its sum over the ranks.
Summed = Callable[[Tensor], Tensor]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the ranks. Every rank's loss depends on it, so its gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, summed: Summed) -> Tensor:
        ctx.summed = summed
        return summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradients[0], ctx.summed), None


def _summed(x: Tensor, group: ProcessGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total, group=group)
    return total


class GlobalBatchNorm(_BatchNorm):
    """Any batch norm, `(x - mean) / sqrt(variance + eps)` per channel of `[R, C, …]`, with the mean and the variance
    of all ranks' rows in training. In evaluation it uses the running statistics, as every batch norm.
    """

    group: ClassVar[ProcessGroup]  # of the class, so that models can be copied

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each channel.

        Args:
            x: `[R, C, …]`, of this rank; the ranks may have different R.

        Returns:
            The same shape.
        """
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        self._check_input_dim(x)
        others = [0, *range(2, x.dim())]
        wide = x.float()
        count_1 = torch.tensor([x.numel() / x.shape[1]], dtype=wide.dtype, device=x.device)
        sums = _Sum.apply(torch.cat([wide.sum(others), count_1]), self._summed)
        n, mean_C = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = wide - _as_channels(mean_C, x)
        variance_C = _Sum.apply(centred.square().sum(others), self._summed) / n  # in two passes: differences stay exact
        if self.training and self.track_running_stats:
            self._track(mean_C.detach(), variance_C.detach() * n / (n - 1))
        y = centred * _as_channels((variance_C + self.eps).rsqrt(), x)
        if self.affine:
            y = y * _as_channels(self.weight, x) + _as_channels(self.bias, x)
        return y.to(x.dtype)

    def _summed(self, x: Tensor) -> Tensor:
        return _summed(x, self.group)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, unbiased_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, weight)
        self.running_var.lerp_(unbiased_C, weight)


def _as_channels(x_C: Tensor, like: Tensor) -> Tensor:
    return x_C.view(-1, *[1] * (like.dim() - 2))


def share_statistics(model: nn.Module, group: ProcessGroup) -> None:
    """Lets every batch norm of a model use the rows of all ranks.

    Args:
        model: its batch norms, and classes derived from them, change their class in place.
        group: of all ranks, which nothing else uses while the model computes.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, GlobalBatchNorm):
            # a class of its own `forward` calls the one of GlobalBatchNorm, which comes before _BatchNorm
            kind = type(module)
            module.__class__ = type(f"Global{kind.__name__}", (kind, GlobalBatchNorm), {"group": group})
