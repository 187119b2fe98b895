"""How a set's images are read: from the cache where they are kept there, else from their files. What is read is the same."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from tasks import cache
from tasks.base import DataError
from tasks.image_store import Progress, Store, damaged
from tasks.imagefolder import FolderSet
from tasks.images import ImageSet, read_rgb, shrink, stored_size

SETTING = "SUITE_IMAGE_CACHE"  # "off": images are decoded each time they are read
FOR_A_RUN = 2e9  # bytes of pixels that a run keeps by itself; `suite data prepare` keeps more
FOR_PREPARING = 100e9
SHARE_OF_DISK = 0.5
WORTH_A_WORD = 100e6  # bytes; less than this is written without announcing it
FORMAT = 1


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

    Pixels are kept (or taken from an earlier run) where those of the whole set need at most `limit` bytes. Parquet files can only be read
    from front to back, so of a larger set of those the image files are kept.
    """
    count = f"{len(images.listing):,} images"
    if os.environ.get(SETTING, "auto") != "off":
        pixels = Store(_folder(images, f"pixels {side}"), images, decoded=True, side=side)
        if not pixels.whole and (needed := bytes_of_pixels(images, side)) <= min(limit, _room(pixels.folder)):
            _announce(pixels.folder, needed, f"keeping {count} decoded")
            pixels.build(progress)
        if pixels.whole:
            return pixels
    if isinstance(images, FolderSet):
        return FileReader(images, side)
    files = Store(_folder(images, "files"), images, decoded=False, side=side)
    if not files.whole:
        _announce(files.folder, int(images.listing.sizes.sum()), f"keeping {count} of Parquet files for reading in any order")
        files.build(progress)
    return files


def check_all(images: ImageSet, reader: Reader, progress: Progress | None) -> None:
    """Decodes every image, unless the reader has done so. Raises one DataError that counts the bad ones and names the first three."""
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


def _folder(images: ImageSet, what: str) -> Path:
    """The store's place: another one for other files or another way of keeping them."""
    return cache.folder("images", sha256(f"{FORMAT} {images.stamp} {what}".encode()).hexdigest()[:32])


def _room(folder: Path) -> float:
    return SHARE_OF_DISK * shutil.disk_usage(folder).free


def _announce(folder: Path, needed: int, what: str) -> None:
    """Says on stderr what is about to be written, where it is much. Raises DataError where the disk has no room for it."""
    cache.require_space(folder, needed, what)
    if needed > WORTH_A_WORD:
        sys.stderr.write(f"{what} takes about {needed / 1e6:,.0f} MB in {folder}\n")


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
