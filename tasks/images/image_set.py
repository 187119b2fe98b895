"""Sets of image files, wherever they lie: the listing of one, and an image as RGB."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tasks.base import DataError

SIXTEEN_BIT = ("PNG", "PPM")  # formats with no more, of which Pillow may give wider integers
UNRANGED = {"I": "signed or 32-bit integers", "F": "floating-point numbers"}  # by Pillow's mode


@dataclass(frozen=True)
class ImageFile:
    """One image: its name in the set ("train/n01440764/a.JPEG"), its class, its size in bytes (0 where that is not
    known).
    """

    path: str
    label: int
    size: int


class Listing(Sequence[ImageFile]):
    """Image files in a fixed order, held in a few arrays: a million of Python's objects would be copied into every
    loader process.
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

    `classes` are their names: the label of a class is its place there. `parts` says which images of `listing` each part
    of the set has ("train", "valid", "test", or "all" where it is not parted). `chunks` are runs of images that are
    read one after the other.
    """

    classes: tuple[str, ...]
    listing: Listing
    parts: Mapping[str, NDArray[np.int64]]
    chunks: Sequence[range]
    fingerprint: str  # sha256 over the classes and what the files are, not over the pixels
    stamp: str  # changes with the fingerprint and whenever a file is written anew
    left_out: str = ""  # which files of the set are not read and why, in words

    @abstractmethod
    def encoded(self, chunk: int) -> Iterator[bytes]:
        """The image files of a chunk, in order. Raises DataError."""

    @abstractmethod
    def where(self, index: int) -> str:
        """An image's place, for a message."""

    @abstractmethod
    def sample(self) -> Iterator[bytes]:
        """Some image files from all over the set."""


def fingerprint(images: Iterable[ImageFile], classes: Sequence[str]) -> str:
    """sha256 over the class list and every image's name and size in bytes, sorted by name. The pixels are not read."""
    listed = sorted((image.path, image.size) for image in images)
    return sha256(json.dumps([list(classes), listed]).encode("utf-8")).hexdigest()


def hold_out(images: Sequence[ImageFile], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits images into the indices (kept, held out): of every class the `share` whose name has the smallest sha256.

    The number is rounded, at least 1 where a class has two images or more, and 0 where it has one. It depends on names
    only.
    """
    by_class: dict[int, list[tuple[bytes, int]]] = {}
    for i, image in enumerate(images):
        by_class.setdefault(image.label, []).append((sha256(os.fsencode(image.path)).digest(), i))
    out = np.zeros(len(images), dtype=bool)
    for members in by_class.values():
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        out[[i for _, i in sorted(members)[:count]]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def read_rgb(encoded: bytes, where: str) -> Image.Image:
    """The whole image, decoded, as RGB: grey, palette, CMYK and 16-bit images are converted, transparency is dropped.

    Raises DataError, with the image's place, where it cannot be decoded to its end or its pixels have no range that is
    known.
    """
    try:
        with Image.open(BytesIO(encoded)) as image:
            image.load()
            if image.mode.startswith("I;16") or (
                image.mode == "I" and image.format in SIXTEEN_BIT
            ):  # Pillow would clip to 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in UNRANGED:  # Pillow would clip these too, and no one says what is white
                raise DataError(
                    f"{where} cannot be read as an image: its pixels are {UNRANGED[image.mode]}; save it as 8 or 16 bit"
                )
            # through RGBA, since Pillow warns of palettes with transparency
            return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "it is in no known format"
        raise DataError(f"{where} cannot be read as an image: {reason}; replace or remove it") from error


def stored_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) of an image whose shorter side is at most `side`, as stored; 0 leaves every image as it is."""
    short = min(width, height)
    if side == 0 or short <= side:
        return width, height
    return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image brought to `stored_size`."""
    size = stored_size(*image.size, side)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
