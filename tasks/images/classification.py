"""Common code of the image tasks: the loss, top-1 and top-5, and Mixup and CutMix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tasks.base import Batch, ImageInput, Metric, SampledUnits, Task, TaskOptions
from tasks.randomness import MIX, seeded
from tasks.units import grouped

Mixup = Callable[[Tensor, Tensor], Any]  # images `[B, C, S, S]`, labels `[B]` → mixed images, targets `[B, classes]`
CUTMIX_HELP = "α of CutMix's Beta(α, α); 0: off; together with mixup, one of the two per batch"


class ImageOptions(TaskOptions):
    """Options of every image task. They change training only: evaluation never mixes images or smooths labels."""

    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="weight of the uniform target in the training loss"
    )
    mixup: float = Field(default=0.0, ge=0.0, le=10.0, description="α of Mixup's Beta(α, α); 0: off")
    cutmix: float = Field(default=0.0, ge=0.0, le=10.0, description=CUTMIX_HELP)


class ImageTask(Task):
    """Metrics of image classification: `top1` and `top5` are fractions in [0, 1]; up to five classes have no `top5`."""

    domain = "vision"
    unit = "images"
    has_epochs = True
    Options: ClassVar[type[TaskOptions]] = ImageOptions
    options: ImageOptions

    @property
    def metrics(self) -> tuple[Metric, ...]:
        top1 = Metric("top1", higher_is_better=True, unit="%", digits=2)
        top5 = Metric("top5", higher_is_better=True, unit="%", digits=2)
        return (top1, *([top5] if self._has_top5 else []), Metric("loss", higher_is_better=False, unit="nats/image"))

    @property
    def _has_top5(self) -> bool:
        return isinstance(self.spec, ImageInput) and self.spec.classes > 5

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the options' label smoothing; targets are classes `[B]` or mixtures `[B, classes]`."""
        return F.cross_entropy(outputs.float(), batch.targets, label_smoothing=self.options.label_smoothing)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        count = float(batch.size)
        ranked = outputs.float().topk(min(5, outputs.shape[-1]), dim=-1).indices == batch.targets[:, None]
        nats = F.cross_entropy(outputs.float(), batch.targets, reduction="none").double().sum().item()
        sums = {"top1": (float(ranked[:, 0].sum().item()), count), "loss": (nats, count)}
        return {**sums, "top5": (float(ranked.any(-1).sum().item()), count)} if self._has_top5 else sums

    def test_units(self) -> SampledUnits | None:
        return grouped("images", np.arange(self.n_examples("test")))

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        # as in `measure`, so that ties are broken alike
        ranked = outputs.float().topk(min(5, outputs.shape[-1]), dim=-1).indices
        correct_B = (ranked[:, 0] == batch.targets).double()
        return torch.stack([correct_B, torch.ones_like(correct_B)], -1)

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {name: total / count for name, (total, count) in sums.items()}


def mixup_for(options: ImageOptions, classes: int) -> Mixup | None:
    """torchvision's MixUp or CutMix (one of them at random if both are on), or None if both are off.

    It draws from torch's global generator.
    """
    if not (options.mixup or options.cutmix):
        return None
    from torchvision.transforms import v2

    available = [(v2.MixUp, options.mixup), (v2.CutMix, options.cutmix)]
    parts = [kind(alpha=alpha, num_classes=classes) for kind, alpha in available if alpha]
    mixup: Mixup = parts[0] if len(parts) == 1 else v2.RandomChoice(parts)
    return mixup


def apply_mixup(mixup: Mixup | None, batch: Batch, seed: int, step: int) -> Batch:
    """The batch after mixing its images, as a function of (seed, step). A batch of one image stays as it is."""
    if mixup is None or batch.size < 2:
        return batch
    with seeded(MIX, seed, step):
        inputs, targets = mixup(batch.inputs, batch.targets)
    return Batch(inputs, targets)


def apply_mixup_to_rows(mixup: Mixup | None, batch: Batch, seed: int, step: int) -> Batch:
    """Mixes some consecutive rows of a larger batch as `apply_mixup` mixes all of it, and drops the first of them.

    torchvision mixes an image with the one before it in the batch, and draws once per batch: so the rows after the
    first are equal to the same rows of the whole batch.
    """
    mixed = apply_mixup(mixup, batch, seed, step)
    return Batch(mixed.inputs[1:], mixed.targets[1:])
