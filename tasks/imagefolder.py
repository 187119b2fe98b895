"""A folder of images, one sub-folder a class, in train/, val/ and test/ or not parted at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from tasks.base import DataError
from tasks.images import ImageFile, ImageSet, Listing, fingerprint

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
PART_NAMES: Mapping[str, tuple[str, ...]] = {"train": ("train",), "valid": ("val", "valid", "validation"), "test": ("test",)}
CHUNK = 1024
SAMPLE = 64


class FolderSet(ImageSet):
    """The images of `root/PART/CLASS/`, or of `root/CLASS/` where there is no train/.

    `classes`: the list that the folders must match, None to take them as they are. `needed`: the parts that are read; those of a folder
    that has more are left alone. Raises DataError.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None, needed: Sequence[str] = ()) -> None:
        self.root = root
        try:
            self._read(classes, needed)
        except OSError as error:
            raise DataError(f"{root} cannot be listed: {error}") from error
        self.chunks = [range(at, min(at + CHUNK, len(self.listing))) for at in range(0, len(self.listing), CHUNK)]

    def _read(self, classes: Sequence[str] | None, needed: Sequence[str]) -> None:
        folders = part_folders(self.root, needed)
        self.classes = tuple(classes) if classes is not None else find_classes(self.root, folders)
        times = sha256()
        images: list[ImageFile] = []
        ends = [0]
        for folder in folders.values():
            listed, changed = list_images(self.root, folder, self.classes)
            images += listed
            times.update(np.array(changed, dtype="<i8").tobytes())
            ends.append(len(images))
        self.listing = Listing(images)
        self.parts = {part: np.arange(*ends[i : i + 2]) for i, part in enumerate(folders)}
        self.fingerprint = fingerprint(images, self.classes)
        self.stamp = sha256(f"{self.root.resolve()} {self.fingerprint} {times.hexdigest()}".encode()).hexdigest()

    def encoded(self, chunk: int) -> Iterator[bytes]:
        return (self.read(i) for i in self.chunks[chunk])

    def read(self, index: int) -> bytes:
        """An image's file."""
        try:
            return (self.root / self.listing[index].path).read_bytes()
        except OSError as error:
            raise DataError(f"{self.where(index)} cannot be read as an image: {error.strerror}; replace or remove it") from error

    def where(self, index: int) -> str:
        return str(self.root / self.listing[index].path)

    def sample(self) -> Iterator[bytes]:
        return (self.read(i) for i in range(0, len(self.listing), -(-len(self.listing) // SAMPLE)))


def part_folders(root: Path, needed: Sequence[str]) -> dict[str, str]:
    """The folder of each part, by part; {"all": "."} where nothing is needed by name and there is no train/."""
    there = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    found = {part: [name for name in names if name in there] for part, names in PART_NAMES.items()}
    for part, names in found.items():
        if len(names) > 1:
            raise DataError(f"{root} has {' and '.join(f'{n}/' for n in names)}; which one is the {part} part? keep one of them")
    for part in needed:
        if not found[part]:
            listed = ", ".join(f"{name}/" for name in sorted(there)[:5]) or "no folder at all"
            wanted = " and ".join(f"{PART_NAMES[p][0]}/" for p in needed)
            lacks = f"{root} has no {PART_NAMES[part][0]}/ in it (there is: {listed})"
            raise DataError(f"{lacks}; needed are {wanted}, each with one folder a class")
    if not needed and not found["train"]:
        return {"all": "."}
    return {part: names[0] for part, names in found.items() if names and (part in needed or not needed)}


def find_classes(root: Path, folders: Mapping[str, str]) -> tuple[str, ...]:
    """The class folders of a set that follows no list, sorted by name. Raises DataError where there are fewer than two."""
    folder = root / folders.get("train", ".")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(found) < 2:
        raise DataError(f"{folder} has {len(found)} class folder(s); needed are two or more, in train/ or by themselves")
    return tuple(found)


def list_images(root: Path, part: str, classes: Sequence[str]) -> tuple[list[ImageFile], list[int]]:
    """The images of `root/part/CLASS/`, sorted by class and name, and when each was written (ns); a label is a class's place in `classes`.

    Raises DataError where the part's folders are not exactly `classes`, or a class has no image.
    """
    folder = root / part
    found = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if found != set(classes):
        raise DataError(f"{folder}: {difference(found, classes, 'class folders')}")
    images, times = [], []
    for label, name in enumerate(classes):
        entries = [e for e in os.scandir(folder / name) if Path(e.name).suffix.lower() in EXTENSIONS and not e.name.startswith(".")]
        if not entries:
            raise DataError(f"{folder / name} holds no image; allowed are files ending in {', '.join(sorted(EXTENSIONS))}")
        prefix = name if part == "." else f"{part}/{name}"
        for entry in sorted(entries, key=lambda e: e.name):
            stat = entry.stat()
            images.append(ImageFile(f"{prefix}/{entry.name}", label, stat.st_size))
            times.append(stat.st_mtime_ns)
    return images, times


def difference(found: set[str], expected: Sequence[str], what: str) -> str:
    """What is missing of the expected classes and what is too much, the first few by name; `what` names where they were looked for."""
    if not found:
        return f"no {what} in it; needed are {len(expected)}, such as {_some(set(expected))}"
    parts = [(set(expected) - found, "missing"), (found - set(expected), "not in the list")]
    told = "; ".join(f"{len(names)} {how} ({_some(names)})" for names, how in parts if names)
    return f"its {what} are not the {len(expected)} of the list: {told}"


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
