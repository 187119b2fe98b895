"""A folder of images with one subfolder per class, either in train/, val/ and test/ or without such parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from tasks.base import DataError
from tasks.images.image_set import ImageFile, ImageSet, Listing, fingerprint
from tasks.images.layout.flat import FlatPart, find_flat
from tasks.images.layout.parts import SKIPPED_FOLDERS, find_classes, part_folders, unused_folders
from tasks.storage.user_files import describe_other_files, entries_below, is_included, reading, suffix_of

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
CHUNK = 1024  # images
SAMPLE = 64  # images


@dataclass
class Found:
    """The images of some class folders with their modification times (ns), and counts of what is ignored."""

    images: list[ImageFile] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    other_suffixes: Counter[str] = field(default_factory=Counter)
    outside_classes: int = 0  # images that are not in a class folder
    unused_folders: list[str] = field(default_factory=list)  # next to those of the parts
    other_classes: int = 0  # images of a part without class folders whose classes are not used
    absent: int = 0  # labels of such a part without an image
    flat: dict[str, Path] = field(default_factory=dict)  # the folder of the images of each such part

    def ignored(self) -> str:
        """One line about the files that are not read; empty if there are none."""
        parts = [others] if (others := describe_other_files(self.other_suffixes, EXTENSIONS)) else []
        if self.outside_classes:
            parts.append(f"{self.outside_classes:,} image{'s' * (self.outside_classes > 1)} outside the class folders")
        if self.other_classes:
            parts.append(f"{self.other_classes:,} images of other classes")
        if self.absent:
            parts.append(f"{self.absent:,} labels without an image")
        if self.unused_folders:
            named = ", ".join(f"{name}/" for name in self.unused_folders)
            parts.append(f"the folder{'s' * (len(self.unused_folders) > 1)} {named}")
        return f"ignored: {' and '.join(parts)}" if parts else ""


class FolderSet(ImageSet):
    """The images of `root/PART/CLASS/` and its subfolders, or of `root/CLASS/` if there is no train/.

    The images of a part other than train/ may be in one folder, with a labels file. They are listed as if they were in
    class folders, so that the set and its fingerprint are the same.

    `classes`: the list that the class folders must match; None: any classes. `needed`: the parts to read, all if it is
    empty. `others`: classes that a labels file may have too, whose images are not used. Raises DataError.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str] | None,
        needed: Sequence[str] = (),
        others: Collection[str] = frozenset(),
    ) -> None:
        self.root = root
        with reading(root):
            self._read(classes, needed, others)
        self.chunks = [range(at, min(at + CHUNK, len(self.listing))) for at in range(0, len(self.listing), CHUNK)]

    def _read(self, classes: Sequence[str] | None, needed: Sequence[str], others: Collection[str]) -> None:
        folders = part_folders(self.root, needed)
        self.classes = tuple(classes) if classes is not None else find_classes(self.root, folders)
        found, ends = Found(unused_folders=unused_folders(self.root, folders)), [0]
        expected = "the list" if classes is not None else f"{folders.get('train', '')}/"
        for part, folder in folders.items():
            flat = None
            if part in ("valid", "test"):
                flat = find_flat(self.root, folder, self.classes, others, EXTENSIONS)
            if flat is not None:
                add_flat(folder, flat, found)
            else:
                list_images(self.root, folder, self.classes, found, expected)
            ends.append(len(found.images))
        self.listing = Listing(found.images)
        self.ignored, self._flat = found.ignored(), found.flat
        self.parts = {part: np.arange(*ends[i : i + 2]) for i, part in enumerate(folders)}
        places = [self._place(image.path) for image in found.images]
        self.fingerprint = fingerprint(found.images, self.classes, places)
        times = sha256(np.array(found.times, dtype="<i8").tobytes()).hexdigest()
        self.stamp = sha256(f"{self.root.resolve()} {self.fingerprint} {times}".encode()).hexdigest()

    def encoded(self, chunk: int) -> Iterator[bytes]:
        return (self.read(i) for i in self.chunks[chunk])

    def read(self, index: int) -> bytes:
        """The file of an image. Raises DataError."""
        try:
            return self._place(self.listing[index].path).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.location(index)} cannot be read as an image: {error.strerror}; replace or remove it"
            ) from error

    def location(self, index: int) -> str:
        return str(self._place(self.listing[index].path))

    def _place(self, path: str) -> Path:
        """Where an image of that name in the set is."""
        part, _, inner = path.partition("/")
        return self._flat[part] / inner.partition("/")[2] if part in self._flat else self.root / path

    def sample(self) -> Iterator[bytes]:
        return (self.read(i) for i in range(0, len(self.listing), -(-len(self.listing) // SAMPLE)))


def add_flat(part: str, flat: FlatPart, found: Found) -> None:
    """Adds the images of a part without class folders, as if they were in class folders."""
    found.flat[part] = flat.folder
    found.other_classes += flat.other_classes
    found.absent += flat.absent
    for label, (name, entries) in enumerate(flat.images.items()):
        for entry in entries:
            stat = entry.stat()
            found.images.append(ImageFile(f"{part}/{name}/{entry.name}", label, stat.st_size))
            found.times.append(stat.st_mtime_ns)


def list_images(root: Path, part: str, classes: Sequence[str], found: Found, expected: str = "the list") -> None:
    """Adds the images in `root/part/CLASS/` and its subfolders, sorted by class and path; a label is an index into
    `classes`, which `expected` has.

    Raises DataError if the part's folders are not exactly `classes`, or a class has no image.
    """
    folder = root / part
    entries = [entry for entry in os.scandir(folder) if _is_included(entry)]
    names = {entry.name for entry in entries if entry.is_dir()}
    if names != set(classes):
        raise DataError(f"{folder}: {difference(names, classes, 'class folders', expected)}")
    found.outside_classes += sum(suffix_of(entry.name) in EXTENSIONS and entry.name not in names for entry in entries)
    for label, name in enumerate(classes):
        below = entries_below(folder / name, above=(root, folder), skipped=SKIPPED_FOLDERS)
        files = sorted(below, key=lambda file: file[0])
        images = [file for file in files if suffix_of(file[0]) in EXTENSIONS]
        if not images:
            accepted = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{folder / name} contains no image; add files that end in {accepted}")
        found.other_suffixes.update(suffix for path, _ in files if (suffix := suffix_of(path)) not in EXTENSIONS)
        prefix = name if part == "." else f"{part}/{name}"
        for path, entry in images:
            stat = entry.stat()
            found.images.append(ImageFile(f"{prefix}/{path}", label, stat.st_size))
            found.times.append(stat.st_mtime_ns)


def _is_included(entry: os.DirEntry[str]) -> bool:
    return is_included(entry.name, SKIPPED_FOLDERS)


def difference(found: set[str], expected: Sequence[str], what: str, place: str = "the list") -> str:
    """Which expected classes are missing and which found ones are unknown; `what` names the place of the found ones,
    `place` that of the expected ones.
    """
    if not found:
        return f"no {what} in it; it needs {len(expected)}, such as {some_of(expected)}"
    parts = [(set(expected) - found, "missing"), (found - set(expected), f"not in {place}")]
    counted = "; ".join(f"{len(names)} {how} ({some_of(names)})" for names, how in parts if names)
    advice = (
        "" if place == "the list" else "; every part needs images of the same classes: add them, or move the part away"
    )
    return f"its {what} do not match the {len(expected)} of {place}: {counted}{advice}"


def some_of(names: Collection[str], most: int = 3) -> str:
    """The first `most` of some names in order."""
    return ", ".join(sorted(names)[:most]) + (", …" if len(names) > most else "")
