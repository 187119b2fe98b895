"""How a set's images are read: from the cache where they are kept there, else from their files. What is read is the
same.
"""

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
from tasks.images.store import Progress, Store, damaged
from tasks.storage import cache

SETTING = "SUITE_IMAGE_CACHE"  # "off": images are decoded each time they are read
FOR_A_RUN = 2e9  # bytes of pixels that a run keeps by itself; `suite data prepare` keeps more
FOR_PREPARING = 100e9
SHARE_OF_DISK = 0.5
WORTH_A_WORD = 100e6  # bytes; less than this is written without announcing it
FORMAT = 2  # 1: 32-bit pictures were clipped to 8 bits, they are refused now


class Reader(Protocol):
    """Reads an image of a set by its index, as RGB; may be copied into loader processes."""

    def read(self, index: int) -> Image.Image: ...


class FileReader:
    """Reads and decodes an image's file each time."""

    def __init__(self, images: FolderSet, side: int) -> None:
        self.images, self.side = images, side

    def read(self, index: int) -> Image.Image:
        return shrink(read_rgb(self.images.read(index), self.images.where(index)), self.side)


def open_images(images: ImageSet, side: int, *, limit: float = FOR_A_RUN, progress: Progress | None = None) -> Reader:
    """The quickest reader that the disk has room for.

    Pixels are kept (or taken from an earlier run) where those of the whole set need at most `limit` bytes. Parquet
    files can only be read from front to back, so of a larger set of those the image files are kept. Raises DataError.
    """
    pixels = _pixels(images, side)
    if _wanted() and not pixels.whole and _fits(pixels, limit):
        pixels.build(progress)
    if _wanted() and pixels.whole:
        return pixels
    if isinstance(images, FolderSet):
        return FileReader(images, side)
    files = _files(images, side)
    if not files.whole:
        cache.require_space(
            files.folder,
            bytes_of_files(images),
            f"reading {len(images.listing):,} images of Parquet files in any order",
        )
        files.build(progress)
    return files


def note(images: ImageSet, side: int) -> str:
    """What will be written to the cache, in words; nothing for little."""
    told, pixels = [], _pixels(images, side)
    kept = _wanted() and (pixels.whole or _fits(pixels, FOR_A_RUN))
    if _wanted() and not pixels.whole:
        needed = f"{bytes_of_pixels(images, side) / 1e6:,.0f} MB"
        if kept and bytes_of_pixels(images, side) > WORTH_A_WORD:
            told.append(f"about {needed} of decoded pixels go to {pixels.folder}")
        elif not kept and _fits(pixels, FOR_PREPARING):
            told.append(
                f"decoded pixels take about {needed} in {pixels.folder}: suite data prepare keeps them, a run does not"
            )
    if not kept and not isinstance(images, FolderSet) and not (files := _files(images, side)).whole:
        told.append(
            f"about {bytes_of_files(images) / 1e6:,.0f} MB of image files go to {files.folder} where their "
            "pixels are not kept"
        )
    return "; ".join(told)


def check_all(images: ImageSet, reader: Reader, progress: Progress | None) -> None:
    """Decodes every image, unless the reader has done so. Raises one DataError that counts the bad ones and names the
    first three.
    """
    total = len(images.listing)
    if isinstance(reader, Store) and reader.decoded:
        return
    problems = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(lambda index: _problem(reader, index), range(total)), 1):
            if found is not None:
                problems.append(found)
            if progress is not None:
                progress(done, total)
    if problems:
        raise damaged(problems, total)


def _problem(reader: Reader, index: int) -> str | None:
    try:
        reader.read(index)
    except DataError as error:
        return str(error)
    return None


def _pixels(images: ImageSet, side: int) -> Store:
    return Store(_folder(images, f"pixels {side}"), images, decoded=True, side=side)


def _files(images: ImageSet, side: int) -> Store:
    return Store(_folder(images, "files"), images, decoded=False, side=side)


def _folder(images: ImageSet, what: str) -> Path:
    """The store's place: another one for other files or another way of keeping them."""
    return cache.folder("images", sha256(f"{FORMAT} {images.stamp} {what}".encode()).hexdigest()[:32])


def _wanted() -> bool:
    return os.environ.get(SETTING, "auto") != "off"


def _fits(pixels: Store, limit: float) -> bool:
    return bytes_of_pixels(pixels.images, pixels.side) <= min(
        limit, SHARE_OF_DISK * shutil.disk_usage(pixels.folder).free
    )


def bytes_of_files(images: ImageSet) -> int:
    """About how many bytes the image files of all images have."""
    return int(images.listing.sizes.sum())


def bytes_of_pixels(images: ImageSet, side: int) -> int:
    """About how many bytes all images need once they are decoded: from the sizes of some of them."""
    areas = []
    for file in images.sample():
        try:
            with Image.open(BytesIO(file)) as image:
                width, height = stored_size(*image.size, side)
        except Exception:  # Pillow's many errors; whoever decodes the image will say what is wrong with it
            continue
        areas.append(3 * width * height)
    return int(len(images.listing) * sum(areas) / max(len(areas), 1))
