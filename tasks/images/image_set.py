"""Sets of labelled image files: their listing and splits, and decoding an image to RGB."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tasks.base import DataError, Split
from tasks.storage import verified
from tasks.storage.user_files import bytes_of

HASHED_BYTES = 2e9  # of image files whose content is part of the fingerprint; reading more would take minutes
SIXTEEN_BIT = ("PNG", "PPM")  # formats of at most 16 bits, which Pillow may read as wider integers
UNKNOWN_RANGE = {"I": "signed or 32-bit integers", "F": "floating-point numbers"}  # by Pillow's mode


@dataclass(frozen=True)
class ImageFile:
    """One image: its name in the set ("train/n01440764/a.JPEG"), its class, its size in bytes (0 if unknown)."""

    path: str
    label: int
    size: int


class Listing(Sequence[ImageFile]):
    """Image files in a fixed order, held in a few arrays: a million Python objects would be copied into every loader
    process.
    """

    def __init__(self, images: Iterable[ImageFile]) -> None:
        listed = list(images)
        names = [os.fsencode(image.path) for image in listed]
        self.labels: NDArray[np.int64] = np.array([image.label for image in listed], dtype=np.int64)
        self.sizes: NDArray[np.int64] = np.array([image.size for image in listed], dtype=np.int64)
        self._names = b"".join(names)
        self._ends: NDArray[np.int64] = np.cumsum([len(name) for name in names], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> ImageFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageFile]: ...
    def __getitem__(self, index: int | slice) -> ImageFile | list[ImageFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return ImageFile(
            os.fsdecode(self._names[start : self._ends[index]]), int(self.labels[index]), int(self.sizes[index])
        )


class ImageSet(ABC):
    """The labelled images of a folder or of Parquet files.

    `classes`: class names by label. `parts`: the indices into `listing` of each part of the set ("train", "valid",
    "test", or "all" if it has no parts). `chunks`: ranges of images that are read in sequence.
    """

    classes: tuple[str, ...]
    listing: Listing
    parts: Mapping[str, NDArray[np.int64]]
    chunks: Sequence[range]
    fingerprint: str  # sha256 over the classes and the names, sizes and (up to HASHED_BYTES) content of the files
    stamp: str  # changes with the fingerprint and whenever a file is rewritten
    ignored: str = ""  # one line about the files that are not read

    @abstractmethod
    def encoded(self, chunk: int) -> Iterator[bytes]:
        """The image files of a chunk, in order. Raises DataError."""

    @abstractmethod
    def location(self, index: int) -> str:
        """Where an image is, for a message."""

    @abstractmethod
    def sample(self) -> Iterator[bytes]:
        """Some image files, spread over the set."""


def fingerprint(images: Iterable[ImageFile], classes: Sequence[str], files: Sequence[Path]) -> str:
    """sha256 over the class list, every image's name and size in bytes, sorted by name, and the content of the files.

    Args:
        images: The images of the set.
        classes: Its class names by label.
        files: The files that hold the images; only their names and sizes count if they are larger than
            `HASHED_BYTES` in total.

    Returns:
        The hash (hex).

    Raises:
        DataError: A file cannot be read.
    """
    listed = sorted((image.path, image.size) for image in images)
    names = sha256(json.dumps([list(classes), listed]).encode("utf-8"))
    return with_content(names.hexdigest(), files)


def with_content(identity: str, files: Sequence[Path]) -> str:
    """sha256 over an identity and the content of some files; the identity itself if these are large. Raises
    DataError.
    """
    if bytes_of(files) > HASHED_BYTES:
        return identity
    return sha256(f"{identity} {verified.content_hash(files)}".encode()).hexdigest()


def split_parts(images: ImageSet, fraction: float) -> dict[Split, NDArray[np.int64]]:
    """The indices of each split of a set, from its parts; those of validation and the test are sorted by class.

    A missing test or validation split is held out of the training part. Raises DataError if nothing can be held out.
    """
    parts = dict(images.parts)
    train = parts.get("train", parts.get("all"))
    if train is None:
        raise DataError(f"the set has only the part {', '.join(parts)}; add a training part: train-*.parquet or train/")
    test = parts["test"] if "test" in parts else parts.get("valid")
    valid = parts["valid"] if "test" in parts and "valid" in parts else None
    if test is None:
        train, test = _hold_out_of(images, train, fraction)
    if valid is None:
        train, valid = _hold_out_of(images, train, fraction)
    valid, test = (index[np.argsort(images.listing.labels[index], kind="stable")] for index in (valid, test))
    return {"train": train, "valid": valid, "test": test}


def _hold_out_of(
    images: ImageSet, index: NDArray[np.int64], fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rest, out = hold_out([images.listing[i] for i in index.tolist()], fraction)
    if not len(out):
        raise DataError(
            f"nothing can be held out: every class has a single image, such as {images.location(int(index[0]))}; add "
            "images, or a part for validation and one for the test"
        )
    return index[rest], index[out]


def hold_out(images: Sequence[ImageFile], fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices (remaining, held out): of every class, the `fraction` of images whose names have the smallest sha256.

    The number per class is rounded, at least 1 if the class has two images or more, and 0 if it has one. The choice
    depends on names only.
    """
    by_class: dict[int, list[tuple[bytes, int]]] = {}
    for i, image in enumerate(images):
        by_class.setdefault(image.label, []).append((sha256(os.fsencode(image.path)).digest(), i))
    out = np.zeros(len(images), dtype=bool)
    for members in by_class.values():
        count = max(1, round(fraction * len(members))) if len(members) > 1 else 0
        out[[i for _, i in sorted(members)[:count]]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def read_rgb(encoded: bytes, where: str) -> Image.Image:
    """The decoded image as RGB: grey, palette, CMYK and 16-bit images are converted, transparency is dropped.

    `where` is its location in errors. Raises DataError if it cannot be decoded completely or the range of its pixel
    values is unknown.
    """
    try:
        with Image.open(BytesIO(encoded)) as image:
            image.load()
            if image.mode.startswith("I;16") or (
                image.mode == "I" and image.format in SIXTEEN_BIT
            ):  # Pillow would clip to 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in UNKNOWN_RANGE:  # Pillow would clip these too, and the value of white is unknown
                found = UNKNOWN_RANGE[image.mode]
                raise DataError(f"{where} cannot be read as an image: its pixels are {found}; save it as 8 or 16 bit")
            # through RGBA, since Pillow warns about palettes with transparency
            return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "unknown format"
        raise DataError(f"{where} cannot be read as an image: {reason}; replace or remove it") from error


def stored_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) of an image in the cache: its shorter side is at most `side` pixels; 0: no limit."""
    short = min(width, height)
    if side == 0 or short <= side:
        return width, height
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image resized to `stored_size`."""
    size = stored_size(*image.size, side)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
