"""Vision: CIFAR-10 and CIFAR-100 (`cifar10`, `cifar100`), 32 × 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import ClassVar

from pydantic import Field

from tasks.base import TaskOptions
from tasks.images.file_options import FileImageOptions
from tasks.images.file_task import FileImageTask
from tasks.images.hub_parquet import HubImages
from tasks.images.parquet import ClassMap
from tasks.images.transforms import Preprocessing

SIDE, PADDING = 32, 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training pixels
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@cache
def cifar100_classes() -> tuple[str, ...]:
    """The names of the hundred fine classes, sorted."""
    return tuple((files(__package__) / "cifar100.txt").read_text(encoding="ascii").split())


class CifarOptions(FileImageOptions):
    """Options of CIFAR; the images stay at 32 × 32 pixels."""

    patch: int = Field(default=4, ge=1, le=SIDE, description="side of a patch in pixels; divides 32")

    @property
    def side(self) -> int:
        return SIDE


class CifarTask(FileImageTask):
    """50,000 training and 10,000 test images; 10 % of every training class is held out for validation.

    crop-flip is the usual augmentation: the image is padded by 4 pixels, cropped and flipped.
    """

    Options: ClassVar[type[TaskOptions]] = CifarOptions
    options: CifarOptions
    downloads = "run"
    needed = ("train", "test")
    held_out = 0.1
    licence = "none stated by the authors (Krizhevsky 2009); research use is customary"

    @property
    def classes(self) -> int:
        return len(self.class_names())

    def class_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(SIDE, MEAN, STD, PADDING)


class Cifar10(CifarTask):
    name = "cifar10"
    summary = "32×32 photographs in ten classes, from the hub (144 MB), a folder or Parquet files"
    protocol = "cifar10/1"
    source = "CIFAR-10 (cs.toronto.edu/~kriz), or uoft-cs/cifar10 of the Hugging Face hub"
    hub = HubImages("uoft-cs/cifar10", "plain_text", {"train": ("train", 1), "test": ("test", 1)}, 144, small=True)
    how_to = (
        "downloaded from the hub by the first run, or by: suite data prepare cifar10",
        "or --data-dir DIR: the hub's Parquet files, or train/ and test/ with the folders of the ten classes",
    )

    def class_names(self) -> tuple[str, ...]:
        return CIFAR10


class Cifar100(CifarTask):
    name = "cifar100"
    summary = "32×32 photographs in a hundred classes, from the hub (142 MB), a folder or Parquet files"
    protocol = "cifar100/1"
    label = "fine_label"
    source = "CIFAR-100 (cs.toronto.edu/~kriz), or uoft-cs/cifar100 of the Hugging Face hub"
    hub = HubImages("uoft-cs/cifar100", "cifar100", {"train": ("train", 1), "test": ("test", 1)}, 142, small=True)
    how_to = (
        "downloaded from the hub by the first run, or by: suite data prepare cifar100",
        "or --data-dir DIR: the hub's Parquet files, or train/ and test/ with the folders of the hundred classes",
    )

    def class_names(self) -> tuple[str, ...]:
        return cifar100_classes()

    def map_classes(self, names: Sequence[str]) -> ClassMap:
        return super().map_classes(["crab" if name == "cra" else name for name in names])  # a typo in the hub's list
