"""Image tasks over files: a folder of images or the hub's Parquet files, split, read, augmented and batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import WHOLE, Batch, DataError, DataInfo, ImageInput, Shard, Split, TaskOptions
from tasks.images.class_folders import FolderSet, difference, some_of
from tasks.images.classification import ImageTask, apply_mixup, apply_mixup_to_rows, mixup_for
from tasks.images.file_options import FileImageOptions
from tasks.images.hub_parquet import HubImages
from tasks.images.image_set import ImageFile, ImageSet, split_parts
from tasks.images.layout.parts import PART_NAMES
from tasks.images.layout.tables import find_tables
from tasks.images.loading import TrainingKeys, evaluation_keys, load_batches
from tasks.images.parquet import ClassMap, ParquetSet
from tasks.images.readers import PREPARE_LIMIT, RUN_LIMIT, Reader, cache_note, check_all, open_images
from tasks.images.transforms import Preprocessing, evaluation_transform, training_transform
from tasks.randomness import evenly_spread

MAX_NAMED_CLASSES = 10


class FileImageTask(ImageTask):
    """A task over image files: `--data-dir` contains train/, val/ and test/ with one folder per class, or the hub's
    Parquet files.

    If a set has only one part apart from train/, that part is the TEST split whatever its name, so that no choice
    depends on it. Validation is then held out of train/: the fraction `held_out` of every class, by the hash of the
    images' names, and at least one image of a class that has two. Every image of a split is evaluated once, unless
    `valid_limit` or `test_limit` select some of them, spread evenly over the classes.
    """

    needs_data_dir = True
    Options: ClassVar[type[TaskOptions]] = FileImageOptions
    options: FileImageOptions
    held_out: ClassVar[float]
    needed: ClassVar[tuple[str, ...]]  # the parts that are read; (): all parts of the set
    label: ClassVar[str] = "label"  # the Parquet column of the labels, if there are several
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
        """The number of classes. Needs no data if the task has a list of them."""
        raise NotImplementedError

    def class_names(self) -> tuple[str, ...] | None:
        """The classes that a set must have; None: any."""
        return None

    def other_classes(self) -> frozenset[str]:
        """Classes that a labels file may have too; their images are not used."""
        return frozenset()

    def map_classes(self, names: Sequence[str]) -> ClassMap:
        """The classes of Parquet files whose labels have these names: any, or the task's own in any order."""
        wanted = self.class_names() or tuple(names)
        if set(names) != set(wanted):
            raise DataError(f"{self.name}: {difference(set(names), wanted, 'class names')}")
        return wanted, np.array([wanted.index(name) for name in names])

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.options.side)

    # --- reading

    def load(self) -> None:
        """Lists the images, checks their classes and opens them. Like `prepare`, decodes all if pixels are cached."""
        self._open(RUN_LIMIT)

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self._list(fetch=True)
        self._reader = None
        check_all(self.set, self._open(PREPARE_LIMIT, progress), progress)

    def prepare_note(self) -> str:
        if self.data_dir is None and self.hub is not None and not self.hub.is_downloaded():
            # a run downloads nothing large, and `prepare` announces it only after the hub has granted access
            return self.hub.download_note() if self.hub.small else ""
        self._list()
        note = cache_note(self.set, self.options.cached_side)
        return "; ".join(filter(None, (note, self.set.ignored, self._classes_note())))

    def _classes_note(self) -> str:
        """The classes as they were found; empty where the task has a list of its own."""
        if self.class_names() is not None:
            return ""
        return f"{len(self.set.classes):,} classes: {some_of(self.set.classes, MAX_NAMED_CLASSES)}"

    def _open(self, limit: float, progress: Callable[[int, int], None] | None = None) -> Reader:
        self._list()
        if self._reader is None:
            self._reader = open_images(self.set, self.options.cached_side, limit=limit, progress=progress)
        return self._reader

    def _list(self, *, fetch: bool = False) -> None:
        if not self.index:
            self.set = self._find(fetch=fetch)
            limits = {"train": 0, "valid": self.options.valid_limit, "test": self.options.test_limit}
            split = split_parts(self.set, self.held_out)
            self.index = {part: index[evenly_spread(len(index), limits[part])] for part, index in split.items()}

    def _find(self, *, fetch: bool) -> ImageSet:
        """The images of the folder or the hub; `fetch`: they may be downloaded even if they are large."""
        root = self.data_dir
        if root is None:
            if self.hub is None or not (fetch or self.hub.small or self.hub.is_downloaded()):
                raise DataError(self._no_folder())
            files = self.hub.fetch()
            return ParquetSet(next(iter(files.values()))[0].parent, files, self.map_classes, self.label)
        if not root.is_dir():
            raise DataError(
                f"{self.name} needs a folder of images: {root} is not a folder. Pass --data-dir DIR with "
                f"{self._layout()}"
            )
        files = find_tables(root, self.needed)
        if files:
            return ParquetSet(root, files, self.map_classes, self.label)
        return FolderSet(root, self.class_names(), self.needed, self.other_classes())

    def _layout(self) -> str:
        return " and ".join(f"{PART_NAMES[part][0]}/" for part in self.needed)

    def _no_folder(self) -> str:
        download = f", or download them: suite data prepare {self.name}" if self.hub else ""
        return (
            f"{self.name} needs images: no folder given. Pass --data-dir DIR with {self._layout()}, or with the hub's "
            f"Parquet files{download} (see suite data info {self.name}); to try the suite now: --task fashion-mnist"
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
        local = self.data_dir is not None or (self.hub is not None and self.hub.is_downloaded())
        if local:
            self._list()
        names = self.class_names()
        listed = {} if names is None else {"class_list_sha256": sha256("\n".join(names).encode()).hexdigest()}
        return DataInfo(
            source=self.source,
            licence=self.licence,
            splits={split: len(index) for split, index in self.index.items()},
            unit="images",
            fingerprint=self.set.fingerprint if local else "",
            embedded=False,
            notes=self._split_notes() if local else self.how_to,
            extra={**self._details(), **listed},
        )

    def _details(self) -> dict[str, Any]:
        return {}

    def _split_notes(self) -> tuple[str, ...]:
        parts = [str(part) for part in self.set.parts]
        test = "test" if "test" in parts else "valid" if "valid" in parts else "held out"
        valid = "valid" if {"test", "valid"} <= set(parts) else f"held out, {self.held_out:.0%} of every class"
        split = f"parts of the set: {', '.join(parts)}; test split: {test}; validation split: {valid}"
        return tuple(filter(None, (split, self.set.ignored, self._classes_note())))

    # --- batches

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        reader, o = self._open(RUN_LIMIT), self.options
        transform = training_transform(self.preprocessing, o.augmentation, o.magnitude, o.erase)
        mixup, places = mixup_for(o, self.classes), np.arange(batch_size)[shard.rows(batch_size)]
        mix = partial(apply_mixup, mixup)
        if mixup is not None and shard.world > 1:  # an image is mixed with the one before it: that one is read too
            places = np.concatenate([[(places[0] - 1) % batch_size], places])
            mix = partial(apply_mixup_to_rows, mixup)
        keys = TrainingKeys(self.index["train"], batch_size, seed, start_step, places)
        return load_batches(reader, self.set.listing.labels, transform, keys, workers, mix)

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        reader = self._open(RUN_LIMIT)
        index = self.index[split]
        keys = evaluation_keys(index[shard.part(len(index))], batch_size)
        return load_batches(reader, self.set.listing.labels, evaluation_transform(self.preprocessing), keys, workers)

    def n_examples(self, split: Split) -> int:
        self._list()
        return len(self.index[split])
