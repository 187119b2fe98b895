"""Vision, full scale: ImageNet-100 (`imagenet100`) from a local folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from PIL import Image, ImageOps
from pydantic import Field, model_validator

from tasks.base import Batch, DataError, DataInfo, ImageInput, Split, TaskOptions
from tasks.classification import ImageOptions, ImageTask, mix, mixer_of_images
from tasks.imagefolder import ImageFile, Key, check_all, fingerprint, hold_out, list_images, load_batches
from tasks.randomness import evenly_spread, shuffled_batches

CLASS_LIST = "imagenet100_cmc"
HELD_OUT = 0.05
NO_FOLDER = (
    "imagenet100 needs images: no folder given. Pass --data-dir DIR with train/ and val/ "
    "(suite data info imagenet100 says how to get them); to try the suite now: --task fashion-mnist"
)
HOW_TO = (
    "ImageNet (ILSVRC 2012) comes from image-net.org after registration; it may not be shipped",
    "make a folder with train/ and val/ and in each the folders (or links) of the 100 classes in tasks/imagenet100_cmc.txt",
    "check it with: suite data prepare imagenet100 --data-dir DIR",
)


class ImageNet100Options(ImageOptions):
    """Options of `imagenet100`; the defaults of the augmentation follow DeiT (arXiv 2012.12877). All are part of a run's identity."""

    image_size: int = Field(default=224, ge=16, le=1024, description="side of the square the images are brought to, in pixels")
    patch: int = Field(default=16, ge=1, le=256, description="side of a patch in pixels; divides image_size")
    augmentation: Literal["none", "crop-flip", "randaugment"] = Field(
        default="randaugment",
        description="none: as in evaluation; crop-flip: random resized crop and flip; randaugment: these and RandAugment",
    )
    magnitude: int = Field(default=9, ge=0, le=10, description="strength of RandAugment")
    erase: float = Field(default=0.25, ge=0.0, le=1.0, description="probability of random erasing (not with augmentation none)")
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0, description="weight of the uniform target in the training loss")
    mixup: float = Field(default=0.8, ge=0.0, le=10.0, description="α of Mixup's Beta(α, α); 0: off")
    cutmix: float = Field(default=1.0, ge=0.0, le=10.0, description="α of CutMix's Beta(α, α); 0: off; with mixup, one of the two a batch")

    valid_limit: int = Field(default=0, ge=0, description="validation images scored, evenly spread over the classes; 0: all")
    test_limit: int = Field(default=0, ge=0, description="test images scored, evenly spread over the classes; 0: all")

    @model_validator(mode="after")
    def _patch_divides(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(f"patch {self.patch} does not divide image_size {self.image_size}; choose a divisor of it")
        return self


def _limited(images: list[ImageFile], limit: int) -> list[ImageFile]:
    return [images[i] for i in evenly_spread(len(images), limit)]


def class_list() -> tuple[str, ...]:
    """The 100 class ids, sorted: the label of a class is its place here."""
    return tuple(sorted((files(__package__) / f"{CLASS_LIST}.txt").read_text(encoding="ascii").split()))


class ImageNet100(ImageTask):
    """100 classes of ImageNet, as listed by the authors of CMC (arXiv 1906.05849), from `DIR/train/CLASS/` and `DIR/val/CLASS/`.

    `val/` is the TEST split: no choice ever sees it. Of `train/`, 5 % of every class (by the hash of the file's path; at least one
    image where there are two) are held out for validation. All images of a split are evaluated, none twice, unless `valid_limit` or
    `test_limit` keep a part, spread evenly over the classes.
    The fingerprint covers the class list and every image's path and size.
    """

    name = "imagenet100"
    summary = "100 classes of ImageNet (CMC's list), from a local folder"
    protocol = "imagenet100/1"
    Options: ClassVar[type[TaskOptions]] = ImageNet100Options
    needs_data_dir = True
    options: ImageNet100Options

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        super().__init__(options, data_dir)
        self.images: dict[Split, list[ImageFile]] = {}
        self._fingerprint = ""

    @property
    def spec(self) -> ImageInput:
        o = self.options
        return ImageInput(channels=3, height=o.image_size, width=o.image_size, patch=o.patch, classes=len(class_list()))

    @property
    def _root(self) -> Path:
        if self.data_dir is None:
            raise DataError(NO_FOLDER)
        if not self.data_dir.is_dir():
            raise DataError(
                f"imagenet100 needs a folder of images: {self.data_dir} is not a folder. Pass --data-dir DIR with train/ and val/"
            )
        return self.data_dir

    def load(self) -> None:
        """Lists the folder and checks its classes; `prepare` also decodes every image."""
        if self.images:
            return
        try:
            train, test = (list_images(self._root, part, class_list()) for part in ("train", "val"))
        except OSError as error:
            raise DataError(f"{self.data_dir} cannot be listed: {error}") from error
        kept, held_out = hold_out(train, HELD_OUT)
        self._fingerprint = fingerprint(train + test, class_list())
        valid, test = _limited(held_out, self.options.valid_limit), _limited(test, self.options.test_limit)
        self.images = {"train": kept, "valid": valid, "test": test}
        if not held_out:
            self.images = {}
            raise DataError(f"{self._root / 'train'} has one image a class: nothing can be held out for validation; needed are two or more")

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.load()
        check_all(self._root, [image for part in self.images.values() for image in part], progress)

    @property
    def fingerprint(self) -> str:
        self.load()
        return self._fingerprint

    def info(self) -> DataInfo:
        if self.data_dir is not None:
            self.load()
        return DataInfo(
            source="ILSVRC 2012 (image-net.org), a local folder",
            licence="ImageNet terms of access: non-commercial research and education",
            splits={split: len(images) for split, images in self.images.items()},
            unit="images",
            fingerprint=self._fingerprint,
            embedded=False,
            notes=HOW_TO if self.data_dir is None else ("val/ is the test split; validation is held out of train/",),
            extra={"class_list": CLASS_LIST, "class_list_sha256": sha256("\n".join(class_list()).encode("ascii")).hexdigest()},
        )

    def train_batches(self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0) -> Iterator[Batch]:
        self.load()
        mixer = partial(mix, mixer_of_images(self.options, len(class_list())))
        keys = _TrainingKeys(len(self.images["train"]), batch_size, seed, start_step)
        return load_batches(self._root, self.images["train"], self._transform(training=True), keys, workers, mixer)

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0) -> Iterator[Batch]:
        self.load()
        n = self.n_examples(split)
        keys: list[list[Key]] = [[(i, 0, 0, i) for i in range(at, min(at + batch_size, n))] for at in range(0, n, batch_size)]
        return load_batches(self._root, self.images[split], self._transform(training=False), keys, workers)

    def n_examples(self, split: Split) -> int:
        self.load()
        return len(self.images[split])

    def _transform(self, training: bool) -> Any:
        """timm's transforms, from a PIL image to a normalised tensor; evaluation: resize to 1/0.875 of the side, centre crop."""
        from timm.data import create_transform

        o = self.options
        if not training or o.augmentation == "none":
            return create_transform(o.image_size, is_training=False, interpolation="bicubic", crop_pct=0.875)
        policy = f"rand-m{o.magnitude}-mstd0.5-inc1" if o.augmentation == "randaugment" else None
        transform = create_transform(
            o.image_size,
            is_training=True,
            interpolation="bicubic",
            auto_augment=policy,
            color_jitter=None,
            re_prob=o.erase,
            re_mode="pixel",
        )
        for op in (op for step in transform.transforms for op in getattr(step, "ops", ())):
            if op.name == "PosterizeIncreasing":
                op.aug_fn = _posterize
        return transform


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm asks for 0 bits at the greatest strength, a black image, which Pillow 13 refuses; here one bit is kept."""
    return ImageOps.posterize(image, max(1, bits))


class _TrainingKeys:
    """Endless lists of keys, from a step on."""

    def __init__(self, n: int, batch_size: int, seed: int, start_step: int) -> None:
        self.n, self.batch_size, self.seed, self.start_step = n, batch_size, seed, start_step

    def __iter__(self) -> Iterator[list[Key]]:
        for step, index in enumerate(shuffled_batches(self.n, self.batch_size, self.seed, self.start_step), self.start_step):
            yield [(int(i), self.seed, step, position) for position, i in enumerate(index)]
