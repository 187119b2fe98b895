"""Vision, full scale: ImageNet-1k (`imagenet1k`) and the 100 classes of CMC's list (`imagenet100`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, ClassVar

import numpy as np

from tasks.base import DataError, TaskOptions
from tasks.images.class_folders import difference
from tasks.images.file_options import SizedImageOptions
from tasks.images.file_task import FileImageTask
from tasks.images.hub_parquet import HubImages
from tasks.images.parquet import ClassMap

CLASS_LIST = "imagenet100_cmc"
SYNSETS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
HUB = HubImages(
    "ILSVRC/imagenet-1k",
    "data",
    {"train": ("train", 294), "valid": ("validation", 14)},
    145_000,
    small=False,
    gated=True,
)
SOURCES = (
    "ImageNet (ILSVRC 2012) is available after registration from image-net.org, or from the hub as "
    "ILSVRC/imagenet-1k; its licence does not allow us to ship it"
)
MIN_EQUAL_NAMES = 0.95  # fraction of the thousand names that must be ImageNet's: some have several spellings


@cache
def synsets() -> tuple[str, ...]:
    """ImageNet-1k's thousand class ids, sorted. The index of an id is its label, also on the hub."""
    from timm.data import ImageNetInfo

    found = tuple(ImageNetInfo("imagenet-1k").label_names())
    if sha256("\n".join(found).encode()).hexdigest() != SYNSETS_SHA256:
        raise DataError(
            "the installed timm has another list of ImageNet's classes; install the version in constraints.txt"
        )
    return found


@cache
def class_list() -> tuple[str, ...]:
    """The 100 class ids of CMC, sorted. The index of an id is its label."""
    return tuple(sorted((files(__package__) / f"{CLASS_LIST}.txt").read_text(encoding="ascii").split()))


def ids_of(names: Sequence[str]) -> tuple[str, ...]:
    """The class ids of Parquet files whose labels have these names: ids, or ImageNet-1k's thousand words in its order.

    Raises DataError for a thousand names in another order; any other names are returned unchanged.
    """
    from timm.data import ImageNetInfo

    if len(names) != len(synsets()) or set(names) == set(synsets()):
        return tuple(names)
    words = ImageNetInfo("imagenet-1k").label_descriptions(detailed=False)
    pairs = enumerate(zip(names, words, strict=True))
    differing = [i for i, (name, word) in pairs if name.casefold() != word.casefold()]
    misplaced = [i for i in differing if names[i] in words]
    if misplaced or len(differing) > (1 - MIN_EQUAL_NAMES) * len(words):
        i = (misplaced or differing)[0]
        raise DataError(
            f"the thousand class names are not ImageNet's in its order: label {i} is {names[i]!r}, expected is "
            f"{words[i]!r}; pass the files of the hub's ILSVRC/imagenet-1k"
        )
    return synsets()


class ImageNetTask(FileImageTask):
    """ImageNet (ILSVRC 2012), all or some of its classes.

    Its val/ is the test split, since the labels of the official test set are not public.
    """

    Options: ClassVar[type[TaskOptions]] = SizedImageOptions
    options: SizedImageOptions
    downloads = "prepare"
    needed = ("train", "valid")
    source = "ILSVRC 2012 (image-net.org), or ILSVRC/imagenet-1k of the Hugging Face hub"
    licence = "ImageNet terms of access: non-commercial research and education"
    hub = HUB

    def other_classes(self) -> frozenset[str]:
        return frozenset(synsets())

    def map_classes(self, names: Sequence[str]) -> ClassMap:
        wanted, found = self.class_names(), ids_of(names)
        assert wanted is not None
        if set(found) not in (set(synsets()), set(wanted)):
            raise DataError(f"{self.name}: {difference(set(found), wanted, 'class names')}")
        place = {name: i for i, name in enumerate(wanted)}
        return wanted, np.array([place.get(name, -1) for name in found])


class ImageNet1k(ImageNetTask):
    """All thousand classes. 1 % of every class of train/ is held out for validation."""

    name = "imagenet1k"
    summary = "ImageNet's 1,000 classes, from a local folder or the hub (gated)"
    protocol = "imagenet1k/1"
    held_out = 0.01
    how_to = (
        SOURCES,
        "--data-dir DIR: train/ and val/, each with the folders of the 1,000 classes (n01440764 …), or the hub's "
        "Parquet files; val/ may hold the images directly, with a labels file: val_labels.txt (lines FILE CLASS), "
        "LOC_val_solution.csv, or ILSVRC2012_validation_ground_truth.txt with meta.mat",
        "or accept the terms on the hub, hf auth login, and: suite data prepare imagenet1k (downloads 145 GB and "
        "stores as much again)",
    )

    @property
    def classes(self) -> int:
        return 1000

    def class_names(self) -> tuple[str, ...]:
        return synsets()


class ImageNet100(ImageNetTask):
    """The 100 classes of ImageNet in the list of CMC's authors (arXiv 1906.05849); 5 % of every class of train/ is held
    out for validation.

    They are read from a folder with exactly these classes, Parquet files with exactly these classes, or all of
    ImageNet-1k's Parquet files.
    """

    name = "imagenet100"
    summary = "100 classes of ImageNet (CMC's list), from a local folder or the hub (gated)"
    protocol = "imagenet100/1"
    held_out = 0.05
    hub = replace(HUB, cached_fraction=0.1)
    how_to = (
        SOURCES,
        "make a folder with train/ and val/, each with the folders (or links) of CMC's 100 classes (imagenet100.txt of "
        "its authors' code, arXiv 1906.05849; class_list_sha256 is the sha256 of its sorted ids, one per line)",
        "or use ImageNet-1k's Parquet files, from which these classes are read: --data-dir DIR, or accept the terms on "
        "the hub, hf auth login, and: suite data prepare imagenet100 (downloads 145 GB and stores a tenth of it again)",
        "check a folder with: suite data prepare imagenet100 --data-dir DIR",
    )

    @property
    def classes(self) -> int:
        return len(class_list())

    def class_names(self) -> tuple[str, ...]:
        return class_list()

    def _details(self) -> dict[str, Any]:
        return {"class_list": CLASS_LIST}
