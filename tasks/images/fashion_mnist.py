"""Vision, embedded: Fashion-MNIST (`fashion-mnist`), all in memory and augmented per batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from tasks import embedded
from tasks.base import WHOLE, Batch, DataInfo, ImageInput, Shard, Split, TaskOptions
from tasks.embedded.packaged import PackagedTask
from tasks.images.classification import ImageOptions, ImageTask, apply_mixup, mixup_for
from tasks.randomness import AUGMENT, generator, shuffled_batches

SIDE, CLASSES = 28, 10
SIZES: dict[Split, int] = {"train": 4500, "valid": 500, "test": 2000}


class FashionMnistOptions(ImageOptions):
    """Options of `fashion-mnist`. All of them are part of a run's identity."""

    patch: int = Field(default=4, ge=1, le=SIDE, description="side of a patch in pixels; divides 28")
    flip: float = Field(default=0.5, ge=0.0, le=1.0, description="probability of a horizontal flip")
    shift: int = Field(
        default=2, ge=0, le=14, description="largest shift in pixels in each direction; the border becomes black"
    )
    erase: float = Field(default=0.0, ge=0.0, le=1.0, description="probability of a random rectangle set to the mean")

    @model_validator(mode="after")
    def _patch_divides(self) -> Self:
        if SIDE % self.patch:
            raise ValueError(
                f"patch {self.patch} does not divide the side of {SIDE} pixels; choose one of 1, 2, 4, 7, 14, 28"
            )
        return self


class FashionMnist(PackagedTask, ImageTask):
    """4,500 training, 500 validation and 2,000 test images of 28 × 28 grey pixels, ten balanced classes.

    Pixels are standardised with the mean and the standard deviation of the training images. Order and augmentation
    depend on (seed, step).
    """

    name = "fashion-mnist"
    summary = "28×28 clothes in ten classes, 4,500 for training (embedded)"
    protocol = "fashion-mnist/1"
    Options: ClassVar[type[TaskOptions]] = FashionMnistOptions
    options: FashionMnistOptions

    @property
    def spec(self) -> ImageInput:
        return ImageInput(channels=1, height=SIDE, width=SIDE, patch=self.options.patch, classes=CLASSES)

    def _read(self) -> None:
        arrays = embedded.read_arrays(self.name)
        ends = np.cumsum(list(SIZES.values()))[:-1]
        self.images: dict[Split, Tensor] = {}
        self.labels: dict[Split, Tensor] = {}
        parts = zip(SIZES, np.split(arrays["images"], ends), np.split(arrays["labels"], ends), strict=True)
        for split, images, labels in parts:
            self.images[split], self.labels[split] = torch.from_numpy(images), torch.from_numpy(labels).long()
        pixels = self.images["train"].double()
        self.mean, self.std = pixels.mean().item(), pixels.std(correction=0).item()
        self._padded = F.pad(self.images["train"], (self.options.shift,) * 4)

    def info(self) -> DataInfo:
        self.load()
        return DataInfo(
            source="Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1",
            licence="MIT, © 2017 Zalando SE",
            splits=dict(SIZES.items()),
            unit="images",
            fingerprint=self.fingerprint,
            embedded=True,
            notes=(
                "train and valid from the official training set, test from the official test set",
                "balanced classes",
            ),
        )

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        self.load()
        mixup, rows = mixup_for(self.options, CLASSES), shard.rows(batch_size)
        for step, index in enumerate(shuffled_batches(SIZES["train"], batch_size, seed, start_step), start_step):
            images = self._augmented(index, generator(AUGMENT, seed, step))
            mixed = apply_mixup(mixup, Batch(images, self.labels["train"][index]), seed, step)
            yield Batch(mixed.inputs[rows], mixed.targets[rows])  # of the whole batch, which takes a millisecond

    def _augmented(self, index: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """Shift and flip in one gather, then erase: library transforms draw once per batch or take milliseconds."""
        B, o, side = len(index), self.options, torch.arange(SIDE)
        dy, dx = torch.from_numpy(random.integers(0, 2 * o.shift + 1, size=(2, B, 1)))
        flipped = torch.from_numpy(random.random((B, 1)) < o.flip)
        rows, columns = dy + side, dx + torch.where(flipped, SIDE - 1 - side, side)
        images = self._standardised(
            self._padded[torch.from_numpy(index)[:, None, None], rows[:, :, None], columns[:, None, :]]
        )
        return images if o.erase == 0 else images.masked_fill(erased(B, o.erase, random), 0.0)

    def _standardised(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.std)[:, None]

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        self.load()
        images, labels = (part[split][shard.part(SIZES[split])] for part in (self.images, self.labels))
        for at in range(0, len(images), batch_size):
            yield Batch(self._standardised(images[at : at + batch_size]), labels[at : at + batch_size])

    def n_examples(self, split: Split) -> int:
        return SIZES[split]


def erased(n: int, probability: float, random: np.random.Generator) -> Tensor:
    """Masks `[n, 1, 28, 28]`, with this probability True in a random rectangle (Zhong et al. 2017, arXiv 1708.04896).

    Its area is 2 to 25 % of the image, the ratio of its sides 0.3 to 3.3 (log-uniform), its position uniform; it is cut
    off at the border.
    """
    area = random.uniform(0.02, 0.25, (n, 1)) * SIDE * SIDE
    ratio = np.exp(random.uniform(np.log(0.3), np.log(3.3), (n, 1)))
    place = np.arange(SIDE)
    inside = []
    for length in (np.sqrt(area * ratio), np.sqrt(area / ratio)):
        start = random.random((n, 1)) * (SIDE - np.minimum(length, SIDE))
        inside.append((place >= start) & (place < start + length))
    chosen = random.random((n, 1, 1)) < probability
    return torch.from_numpy(inside[0][:, :, None] & inside[1][:, None, :] & chosen)[:, None]
