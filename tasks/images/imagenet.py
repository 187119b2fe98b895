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
from tasks.images.file_task import FileImageTask, SizedImageOptions
from tasks.images.hub_parquet import HubImages
from tasks.images.parquet import Choice

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
KNOWN_NAMES = (
    0.95  # share of the thousand names that must be ImageNet's, at their places: a few are spelt in more than one way
)


@cache
def synsets() -> tuple[str, ...]:
    """ImageNet-1k's thousand class ids, sorted: the label of a class, on the hub too, is its place here."""
    from timm.data import ImageNetInfo

    found = tuple(ImageNetInfo("imagenet-1k").label_names())
    if sha256("\n".join(found).encode()).hexdigest() != SYNSETS_SHA256:
        raise DataError(
            "the installed timm has another list of ImageNet's classes; install the version that constraints.txt names"
        )
    return found


@cache
def class_list() -> tuple[str, ...]:
    """The 100 class ids of CMC, sorted: the label of a class is its place here."""
    return tuple(sorted((files(__package__) / f"{CLASS_LIST}.txt").read_text(encoding="ascii").split()))


def ids_of(names: Sequence[str]) -> tuple[str, ...]:
    """The class ids of Parquet files whose labels have these names: ids already, or ImageNet-1k's thousand words in its
    order.

    Raises DataError for a thousand names in another order; other names are given back as they are.
    """
    from timm.data import ImageNetInfo

    if len(names) != len(synsets()) or set(names) == set(synsets()):
        return tuple(names)
    words = ImageNetInfo("imagenet-1k").label_descriptions(detailed=False)
    differing = [
        i for i, (name, word) in enumerate(zip(names, words, strict=True)) if name.casefold() != word.casefold()
    ]
    misplaced = [i for i in differing if names[i] in words]
    if misplaced or len(differing) > (1 - KNOWN_NAMES) * len(words):
        i = (misplaced or differing)[0]
        raise DataError(
            f"the thousand class names are not ImageNet's in its order: label {i} is {names[i]!r}, there it is "
            f"{words[i]!r}"
        )
    return synsets()


class ImageNetTask(FileImageTask):
    """ImageNet (ILSVRC 2012), all or some of its classes. Its val/ is the test split: the labels of its test images are
    not public.
    """

    Options: ClassVar[type[TaskOptions]] = SizedImageOptions
    options: SizedImageOptions
    needed = ("train", "valid")
    source = "ILSVRC 2012 (image-net.org), or ILSVRC/imagenet-1k of the Hugging Face hub"
    licence = "ImageNet terms of access: non-commercial research and education"
    hub = HUB

    def choose(self, names: Sequence[str]) -> Choice:
        wanted, given = self.class_names(), ids_of(names)
        assert wanted is not None
        whole = set(given) == set(synsets())
        if not whole and set(given) != set(wanted):
            raise DataError(f"{self.name}: {difference(set(given), wanted, 'class names')}")
        place = {name: i for i, name in enumerate(wanted)}
        return wanted, np.array([place.get(name, -1) for name in given])


class ImageNet1k(ImageNetTask):
    """The thousand classes. 1 % of every class of train/ is held out for validation."""

    name = "imagenet1k"
    summary = "ImageNet's 1,000 classes, from a local folder or the hub (gated)"
    protocol = "imagenet1k/1"
    held_out = 0.01
    how_to = (
        "ImageNet (ILSVRC 2012) comes from image-net.org, or as ILSVRC/imagenet-1k from the hub, after "
        "registration; it may not be shipped",
        "--data-dir DIR: train/ and val/, in each the folders of the 1,000 classes (n01440764 …), or the hub's "
        "Parquet files",
        "or accept the terms on the hub, hf auth login, and: suite data prepare imagenet1k (downloads 145 GB "
        "and keeps as much again)",
    )

    @property
    def classes(self) -> int:
        return 1000

    def class_names(self) -> tuple[str, ...]:
        return synsets()


class ImageNet100(ImageNetTask):
    """100 classes of ImageNet, as listed by the authors of CMC (arXiv 1906.05849); 5 % of every class of train/ held
    out for validation.

    From a folder with exactly these classes, Parquet files with exactly these, or all of ImageNet-1k's Parquet files,
    of which they are taken.
    """

    name = "imagenet100"
    summary = "100 classes of ImageNet (CMC's list), from a local folder or the hub (gated)"
    protocol = "imagenet100/1"
    held_out = 0.05
    hub = replace(HUB, kept=0.1)
    how_to = (
        "ImageNet (ILSVRC 2012) comes from image-net.org, or as ILSVRC/imagenet-1k from the hub, after "
        "registration; it may not be shipped",
        "make a folder with train/ and val/ and in each the folders (or links) of CMC's 100 classes "
        "(imagenet100.txt of its authors' code, arXiv 1906.05849; class_list_sha256 is that of its sorted ids, "
        "one a line)",
        "or take ImageNet-1k's Parquet files, of which these classes are read: --data-dir DIR, or accept the "
        "terms on the hub, "
        "hf auth login, and: suite data prepare imagenet100 (downloads 145 GB and keeps a tenth of it again)",
        "check either with: suite data prepare imagenet100 --data-dir DIR",
    )

    @property
    def classes(self) -> int:
        return len(class_list())

    def class_names(self) -> tuple[str, ...]:
        return class_list()

    def _details(self) -> dict[str, Any]:
        return {"class_list": CLASS_LIST}
