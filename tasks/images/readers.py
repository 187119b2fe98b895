"""Reading the images of a set: from the cache if they are stored there, else from their files. Both give the same."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from tasks.base import DataError
from tasks.images.class_folders import FolderSet
from tasks.images.image_set import ImageSet, read_rgb, shrink, stored_size
from tasks.images.store import Progress, Store, damaged_images
from tasks.storage import cache
from tasks.storage.cores import cores

SETTING = "SUITE_IMAGE_CACHE"  # "off": images are decoded each time they are read
RUN_LIMIT = 2e9  # bytes of decoded pixels that a run may store
PREPARE_LIMIT = 100e9  # the same for `suite data prepare`
MAX_DISK_FRACTION = 0.5  # of the free space that decoded pixels may take
MIN_ANNOUNCED_BYTES = 100e6  # smaller writes are not announced
FORMAT = 3  # 1 clipped 32-bit images to 8 bits, which are now refused; 2 had no hashes


class Reader(Protocol):
    """Reads an image of a set by its index, as RGB; can be copied into loader processes."""

    def read(self, index: int) -> Image.Image: ...


class FileReader:
    """Reads and decodes the file of an image each time."""

    def __init__(self, images: FolderSet, side: int) -> None:
        self.images, self.side = images, side

    def read(self, index: int) -> Image.Image:
        return shrink(read_rgb(self.images.read(index), self.images.location(index)), self.side)


def open_images(images: ImageSet, side: int, *, limit: float = RUN_LIMIT, progress: Progress | None = None) -> Reader:
    """The fastest reader for which the disk has space.

    Decoded pixels are stored (or reused) if those of the set need at most `limit` bytes. Parquet files can only be read
    in sequence, so of a larger set of Parquet files the image files are stored. Raises DataError.
    """
    pixels = _pixel_store(images, side)
    if _caching() and not pixels.is_complete and _fits(pixels, limit):
        pixels.build(progress)
    if _caching() and pixels.is_complete:
        pixels.verify()
        return pixels
    if isinstance(images, FolderSet):
        return FileReader(images, side)
    files = _file_store(images, side)
    if not files.is_complete:
        what = f"reading {len(images.listing):,} images of Parquet files in random order"
        cache.require_space(files.folder, bytes_of_files(images), what)
        files.build(progress)
    files.verify()
    return files


def cache_note(images: ImageSet, side: int) -> str:
    """One line about what will be written to the cache; empty if it is little."""
    notes, pixels = [], _pixel_store(images, side)
    stored = _caching() and (pixels.is_complete or _fits(pixels, RUN_LIMIT))
    if _caching() and not pixels.is_complete:
        needed = f"{bytes_of_pixels(images, side) / 1e6:,.0f} MB"
        if stored and bytes_of_pixels(images, side) > MIN_ANNOUNCED_BYTES:
            notes.append(f"about {needed} of decoded pixels will be written to {pixels.folder}")
        elif not stored and _fits(pixels, PREPARE_LIMIT):
            notes.append(
                f"decoded pixels need about {needed} in {pixels.folder}: suite data prepare stores them, a run does not"
            )
    if not stored and not isinstance(images, FolderSet) and not (files := _file_store(images, side)).is_complete:
        size = f"{bytes_of_files(images) / 1e6:,.0f} MB"
        notes.append(f"about {size} of image files will be written to {files.folder} unless their pixels are stored")
    return "; ".join(notes)


def check_all(images: ImageSet, reader: Reader, progress: Progress | None) -> None:
    """Decodes every image, unless the reader has done so. Raises a DataError that counts the damaged ones and names the
    first three.
    """
    total = len(images.listing)
    if isinstance(reader, Store) and reader.decoded:
        return
    problems = []
    with ThreadPoolExecutor(cores()) as pool:
        for done, found in enumerate(pool.map(lambda index: _problem(reader, index), range(total)), 1):
            if found is not None:
                problems.append(found)
            if progress is not None:
                progress(done, total)
    if problems:
        raise damaged_images(problems, total)


def _problem(reader: Reader, index: int) -> str | None:
    try:
        reader.read(index)
    except DataError as error:
        return str(error)
    return None


def _pixel_store(images: ImageSet, side: int) -> Store:
    return Store(_folder(images, f"pixels {side}"), images, decoded=True, side=side)


def _file_store(images: ImageSet, side: int) -> Store:
    return Store(_folder(images, "files"), images, decoded=False, side=side)


def _folder(images: ImageSet, what: str) -> Path:
    """The folder of a store, which depends on the files and on what is stored of them."""
    return cache.folder("images", sha256(f"{FORMAT} {images.stamp} {what}".encode()).hexdigest()[:32])


def _caching() -> bool:
    return os.environ.get(SETTING, "auto") != "off"


def _fits(pixels: Store, limit: float) -> bool:
    return bytes_of_pixels(pixels.images, pixels.side) <= min(
        limit, MAX_DISK_FRACTION * shutil.disk_usage(pixels.folder).free
    )


def bytes_of_files(images: ImageSet) -> int:
    """Approximate bytes of all image files."""
    return int(images.listing.sizes.sum())


def bytes_of_pixels(images: ImageSet, side: int) -> int:
    """Approximate bytes of all decoded images, from the sizes of some of them."""
    areas = []
    for file in images.sample():
        try:
            with Image.open(BytesIO(file)) as image:
                width, height = stored_size(*image.size, side)
        except Exception:  # Pillow raises many types; decoding the image will report the error
            continue
        areas.append(3 * width * height)
    return int(len(images.listing) * sum(areas) / max(len(areas), 1))
