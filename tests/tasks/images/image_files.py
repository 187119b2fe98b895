"""Real images in the usual layouts: folders of images, and Parquet files of the hub.

They are those of the embedded fashion-mnist, enlarged and coloured. `python -m tests.tasks.images.image_files FOLDER`
writes a set of each kind to look at or to train on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tasks import embedded
from tasks.images.cifar import CIFAR10
from tasks.images.imagenet import class_list

#: mode and format of the images of a class, in turn
KINDS = (("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"))
SUFFIX = {"JPEG": ".JPEG", "PNG": ".png"}


@cache
def _clothes() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    arrays = embedded.read_arrays("fashion-mnist")
    return arrays["images"], arrays["labels"]


def picture(label: int, number: int, width: int, height: int) -> Image.Image:
    """The `number`-th image of a class: the garment of `label` mod 10 in one of ten colours, for a hundred classes."""
    images, labels = _clothes()
    place = np.flatnonzero(labels == label % 10)[number]
    hue = 25 * (label // 10 % 10)
    colour = Image.new("HSV", (1, 1), (hue, 200, 255)).convert("RGB").getpixel((0, 0))
    assert isinstance(colour, tuple)
    grey = Image.fromarray(images[place]).resize((width, height), Image.Resampling.BICUBIC)
    return ImageOps.colorize(grey, black="black", white=colour)


def encode(image: Image.Image, mode: str, kind: str) -> bytes:
    held = BytesIO()
    (image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)).save(held, kind)
    return held.getvalue()


def files_of(classes: int, count: int, first: int = 0, side: int = 0) -> Iterator[tuple[int, str, bytes]]:
    """(label, file name, file) of `count` images per class, of all kinds and mixed sizes, or PNGs of `side` pixels."""
    for label in range(classes):
        for number in range(first, first + count):
            yield label, *_file(label, number, side)


@cache
def _file(label: int, number: int, side: int) -> tuple[str, bytes]:
    mode, kind = ("RGB", "PNG") if side else KINDS[(label + number) % len(KINDS)]
    width, height = (side, side) if side else (32 + (7 * number + label) % 29, 32 + (5 * number + 3 * label) % 23)
    return f"{label:03}_{number:04}{SUFFIX[kind]}", encode(picture(label, number, width, height), mode, kind)


def write_folder(root: Path, names: Sequence[str], **counts: int) -> Path:
    """Writes `root/PART/CLASS/FILE` for each part with its number of images per class; "all" is `root/CLASS/FILE`."""
    first = 0
    for part, count in counts.items():
        for label, file, content in files_of(len(names), count, first):
            folder = root / ("" if part == "all" else part) / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        first += count
    return root


def write_parquet(
    folder: Path,
    part: str,
    files: Sequence[tuple[int, str, bytes | None]],
    names: Sequence[str],
    *,
    shards: int = 1,
    image: str = "image",
    label: str = "label",
    coarse: Sequence[str] = (),
    order: Sequence[int] | None = None,
) -> list[Path]:
    """Writes `folder/PART-NNNNN-of-NNNNN.parquet` with metadata through Hugging Face datasets; label i is `names[i]`.

    `order`: the labels of the files as indices into `names`, by default unchanged. `coarse`: the names of a second
    class column.
    """
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    folder.mkdir(parents=True, exist_ok=True)
    features = {image: ImageFeature(), label: ClassLabel(names=list(names))}
    labels = [number if order is None else order[number] for number, _, _ in files]
    columns = {image: [{"bytes": content, "path": name} for _, name, content in files], label: labels}
    if coarse:
        features["coarse_label"] = ClassLabel(names=list(coarse))
        columns["coarse_label"] = [number % len(coarse) for number in labels]
    whole = Dataset.from_dict(columns, features=Features(features))
    written = []
    for shard in range(shards):
        written.append(folder / f"{part}-{shard:05}-of-{shards:05}.parquet")
        whole.shard(shards, shard, contiguous=True).to_parquet(written[-1], batch_size=40)
    return written


def write_cifar10(folder: Path, train: int, test: int) -> Path:
    """Writes uoft-cs/cifar10 in the hub's layout, with fewer images per class."""
    for part, count, first in (("train", train, 0), ("test", test, train)):
        write_parquet(folder / "plain_text", part, list(files_of(10, count, first, side=32)), CIFAR10, image="img")
    return folder


def write_imagenet100_parquet(folder: Path, train: int, valid: int, *, shards: int = 2) -> Path:
    """Writes the hundred classes by their ids in ImageNet-1k's layout, with shuffled rows."""
    for part, count, first in (("train", train, 0), ("validation", valid, train)):
        files = list(files_of(100, count, first))
        mixed = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
        write_parquet(folder / "data", part, mixed, class_list(), shards=shards)
    return folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_folder(target / "imagenet100-folder", class_list(), train=6, val=2)
    write_imagenet100_parquet(target / "imagenet100-parquet", 6, 2)
    write_cifar10(target / "cifar10-parquet", 200, 50)
    write_folder(target / "own-folder", ["boots", "coats", "shirts"], all=40)
