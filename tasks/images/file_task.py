"""Image tasks over the user's own files: a folder of images or the hub's Parquet files, split, read, augmented,
batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tasks.base import WHOLE, Batch, DataError, DataInfo, ImageInput, Shard, Split, TaskOptions
from tasks.images.class_folders import PART_NAMES, FolderSet, difference
from tasks.images.classification import ImageOptions, ImageTask, mix, mix_rows, mixer_of_images
from tasks.images.hub_parquet import HubImages
from tasks.images.image_set import ImageFile, ImageSet, hold_out
from tasks.images.loading import TrainingKeys, evaluation_keys, load_batches
from tasks.images.parquet import Choice, ParquetSet, find_shards
from tasks.images.readers import FOR_A_RUN, FOR_PREPARING, Reader, check_all, note, open_images
from tasks.images.transforms import Recipe, evaluation_transform, training_transform
from tasks.randomness import evenly_spread

PARTS: tuple[Split, ...] = ("train", "valid", "test")


class FileImageOptions(ImageOptions):
    """Options of image tasks over files; the augmentation's defaults follow DeiT (arXiv 2012.12877). All are part of a
    run's identity.
    """

    patch: int = Field(default=16, ge=1, le=256, description="side of a patch in pixels; divides the image's side")
    augmentation: Literal["none", "crop-flip", "randaugment"] = Field(
        default="randaugment",
        description="none: as in evaluation; crop-flip: random crop and flip; randaugment: these and RandAugment",
    )
    magnitude: int = Field(default=9, ge=0, le=10, description="strength of RandAugment")
    erase: float = Field(
        default=0.25, ge=0.0, le=1.0, description="probability of random erasing (not with augmentation none)"
    )
    label_smoothing: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="weight of the uniform target in the training loss"
    )
    mixup: float = Field(default=0.8, ge=0.0, le=10.0, description="α of Mixup's Beta(α, α); 0: off")
    cutmix: float = Field(
        default=1.0, ge=0.0, le=10.0, description="α of CutMix's Beta(α, α); 0: off; with mixup, one of the two a batch"
    )
    valid_limit: int = Field(
        default=0, ge=0, description="validation images scored, evenly spread over the classes; 0: all"
    )
    test_limit: int = Field(default=0, ge=0, description="test images scored, evenly spread over the classes; 0: all")

    @property
    def side(self) -> int:
        """Side of the square images that the model reads, in pixels."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _patch_divides(self) -> Self:
        if self.side % self.patch:
            raise ValueError(
                f"patch {self.patch} does not divide the image's side of {self.side} pixels; choose a divisor of it"
            )
        return self


class SizedImageOptions(FileImageOptions):
    """Options of tasks whose images have all sizes."""

    image_size: int = Field(
        default=224, ge=16, le=1024, description="side of the square the images are brought to, in pixels"
    )
    stored_side: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="larger images are first brought to this shorter side, once where they are cached; 0: off",
    )

    @property
    def side(self) -> int:
        return self.image_size


class FileImageTask(ImageTask):
    """A task over image files. `--data-dir` holds train/, val/ and test/ with one folder a class, or the hub's Parquet
    files.

    Where a set has only one part beside train/ that is the TEST split, whatever its name: no choice ever sees it. What
    is missing then, validation, is held out of train/: of every class the `held_out` share, by the hash of the images'
    names, at least one image where there are two. All images of a split are evaluated, none twice, unless `valid_limit`
    or `test_limit` keep a part, spread evenly over the classes.
    """

    needs_data_dir = True
    Options: ClassVar[type[TaskOptions]] = FileImageOptions
    options: FileImageOptions
    held_out: ClassVar[float]
    needed: ClassVar[tuple[str, ...]]  # the parts that are read; () those that there are
    label: ClassVar[str] = "label"  # the Parquet column of the labels, where there are several
    licence: ClassVar[str]
    source: ClassVar[str]
    how_to: ClassVar[tuple[str, ...]]
    hub: ClassVar[HubImages | None] = None

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        super().__init__(options, data_dir)
        self.index: dict[Split, NDArray[np.int64]] = {}
        self._reader: Reader | None = None

    @property
    def spec(self) -> ImageInput:
        side = self.options.side
        return ImageInput(channels=3, height=side, width=side, patch=self.options.patch, classes=self.classes)

    @property
    def classes(self) -> int:
        """How many there are. Needs no data where the task has a list of them."""
        raise NotImplementedError

    def class_names(self) -> tuple[str, ...] | None:
        """The classes that a folder must have, None where it may have any."""
        return None

    def choose(self, names: Sequence[str]) -> Choice:
        """What is taken of Parquet files whose labels have these names: all, or the same classes as the task's, in any
        order.
        """
        wanted = self.class_names() or tuple(names)
        if set(names) != set(wanted):
            raise DataError(f"{self.name}: {difference(set(names), wanted, 'class names')}")
        return wanted, np.array([wanted.index(name) for name in names])

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.options.side)

    # --- Reading
    # ----------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Lists the images, checks their classes and opens them. Decodes all where their pixels are cached, as
        `prepare` does.
        """
        self._open(FOR_A_RUN)

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self._list(fetch=True)
        self._reader = None
        check_all(self.set, self._open(FOR_PREPARING, progress), progress)

    def prepare_note(self) -> str:
        if self.data_dir is None and self.hub is not None and not self.hub.here():
            return (
                self.hub.note() if self.hub.small else ""
            )  # a run fetches nothing large; `prepare` tells it once the hub lets us in
        self._list()
        return "; ".join(filter(None, (note(self.set, self._stored_side), self.set.left_out)))

    @property
    def _stored_side(self) -> int:
        return getattr(self.options, "stored_side", 0)

    def _open(self, limit: float, progress: Callable[[int, int], None] | None = None) -> Reader:
        self._list()
        if self._reader is None:
            self._reader = open_images(self.set, self._stored_side, limit=limit, progress=progress)
        return self._reader

    def _list(self, *, fetch: bool = False) -> None:
        if not self.index:
            self.set = self._find(fetch=fetch)
            limits = {"train": 0, "valid": self.options.valid_limit, "test": self.options.test_limit}
            split = split_parts(self.set, self.held_out)
            self.index = {part: index[evenly_spread(len(index), limits[part])] for part, index in split.items()}

    def _find(self, *, fetch: bool) -> ImageSet:
        """The images, wherever they are; `fetch`: they may be downloaded however large they are."""
        root = self.data_dir
        if root is None:
            if self.hub is None or not (fetch or self.hub.small or self.hub.here()):
                raise DataError(self._nothing_given())
            files = self.hub.fetch()
            return ParquetSet(next(iter(files.values()))[0].parent, files, self.choose, self.label)
        if not root.is_dir():
            raise DataError(
                f"{self.name} needs a folder of images: {root} is not a folder. Pass --data-dir DIR with "
                f"{self._layout()}"
            )
        shards = find_shards(root, self.needed)
        return (
            ParquetSet(root, shards, self.choose, self.label)
            if shards
            else FolderSet(root, self.class_names(), self.needed)
        )

    def _layout(self) -> str:
        return " and ".join(f"{PART_NAMES[part][0]}/" for part in self.needed)

    def _nothing_given(self) -> str:
        fetched = f", or have them downloaded: suite data prepare {self.name}" if self.hub else ""
        return (
            f"{self.name} needs images: no folder given. Pass --data-dir DIR with {self._layout()}, or with "
            "the hub's Parquet files"
            f"{fetched} (suite data info {self.name} tells more); to try the suite now: --task fashion-mnist"
        )

    @property
    def images(self) -> dict[Split, list[ImageFile]]:
        """The images of each split."""
        self._list()
        return {split: [self.set.listing[i] for i in index.tolist()] for split, index in self.index.items()}

    @property
    def fingerprint(self) -> str:
        self._list()
        return self.set.fingerprint

    def info(self) -> DataInfo:
        here = self.data_dir is not None or (self.hub is not None and self.hub.here())
        if here:
            self._list()
        names = self.class_names()
        listed = {} if names is None else {"class_list_sha256": sha256("\n".join(names).encode()).hexdigest()}
        return DataInfo(
            source=self.source,
            licence=self.licence,
            splits={split: len(index) for split, index in self.index.items()},
            unit="images",
            fingerprint=self.set.fingerprint if here else "",
            embedded=False,
            notes=self._split_notes() if here else self.how_to,
            extra={**self._details(), **listed},
        )

    def _details(self) -> dict[str, Any]:
        return {}

    def _split_notes(self) -> tuple[str, ...]:
        parts = [str(part) for part in self.set.parts]
        test = "test" if "test" in parts else "valid" if "valid" in parts else "held out"
        valid = "valid" if {"test", "valid"} <= set(parts) else f"held out, {self.held_out:.0%} of every class"
        split = f"parts at hand: {', '.join(parts)}; the test split: {test}; the validation split: {valid}"
        return (split, self.set.left_out) if self.set.left_out else (split,)

    # --- Batches
    # ----------------------------------------------------------------------------------------------

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        reader, o = self._open(FOR_A_RUN), self.options
        transform = training_transform(self.recipe, o.augmentation, o.magnitude, o.erase)
        mixer, places = mixer_of_images(o, self.classes), np.arange(batch_size)[shard.rows(batch_size)]
        mixes = partial(mix, mixer)
        if mixer is not None and shard.world > 1:  # an image is mixed with the one before it: that one is read too
            places = np.concatenate([[(places[0] - 1) % batch_size], places])
            mixes = partial(mix_rows, mixer)
        keys = TrainingKeys(self.index["train"], batch_size, seed, start_step, places)
        return load_batches(reader, self.set.listing.labels, transform, keys, workers, mixes)

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        reader = self._open(FOR_A_RUN)
        index = self.index[split]
        keys = evaluation_keys(index[shard.part(len(index))], batch_size)
        return load_batches(reader, self.set.listing.labels, evaluation_transform(self.recipe), keys, workers)

    def n_examples(self, split: Split) -> int:
        self._list()
        return len(self.index[split])


def split_parts(images: ImageSet, share: float) -> dict[Split, NDArray[np.int64]]:
    """The splits of a set with its parts, what is evaluated in the order of the classes. Raises DataError where nothing
    can be held out.
    """
    parts = dict(images.parts)
    train = parts.get("train", parts.get("all"))
    if train is None:
        raise DataError(f"the set has only {', '.join(parts)}; needed is a part to train on: train-*.parquet or train/")
    test = parts["test"] if "test" in parts else parts.get("valid")
    valid = parts["valid"] if "test" in parts and "valid" in parts else None
    if test is None:
        train, test = _hold_out(images, train, share)
    if valid is None:
        train, valid = _hold_out(images, train, share)
    valid, test = (index[np.argsort(images.listing.labels[index], kind="stable")] for index in (valid, test))
    return {"train": train, "valid": valid, "test": test}


def _hold_out(images: ImageSet, index: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kept, out = hold_out([images.listing[i] for i in index.tolist()], share)
    if not len(out):
        raise DataError(
            f"{images.where(int(index[0]))}: it is the only one of its class, as in the others; nothing can be held out"
        )
    return index[kept], index[out]
