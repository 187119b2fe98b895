"""A folder of images, one sub-folder a class, in train/, val/ and test/ or not parted at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from tasks.base import DataError
from tasks.images.image_set import ImageFile, ImageSet, Listing, fingerprint
from tasks.storage.user_files import describe_other_files, entries_below, is_included, reading, suffix_of

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})
PART_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("val", "valid", "validation"),
    "test": ("test",),
}
NO_PICTURES = frozenset({"@eaDir", "__MACOSX"})  # folders that file servers and archives put among others
CHUNK = 1024
SAMPLE = 64


@dataclass
class Found:
    """The images of some class folders, when each was written (ns), and what was left out: files by their suffix,
    images by where.
    """

    images: list[ImageFile] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    other_kinds: Counter[str] = field(default_factory=Counter)
    beside: int = 0  # images that lie beside the class folders

    def left_out(self) -> str:
        """What is not read and why, in words; empty where nothing."""
        told = [kinds] if (kinds := describe_other_files(self.other_kinds, EXTENSIONS)) else []
        if self.beside:
            told.append(f"{self.beside:,} image{'s' * (self.beside > 1)} beside the class folders")
        return f"left out: {' and '.join(told)}" if told else ""


class FolderSet(ImageSet):
    """The images of `root/PART/CLASS/` and the folders below it, or of `root/CLASS/` where there is no train/.

    `classes`: the list that the folders must match, None to take them as they are. `needed`: the parts that are read;
    those of a folder that has more are left alone. Raises DataError.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None, needed: Sequence[str] = ()) -> None:
        self.root = root
        with reading(root):
            self._read(classes, needed)
        self.chunks = [range(at, min(at + CHUNK, len(self.listing))) for at in range(0, len(self.listing), CHUNK)]

    def _read(self, classes: Sequence[str] | None, needed: Sequence[str]) -> None:
        folders = part_folders(self.root, needed)
        self.classes = tuple(classes) if classes is not None else find_classes(self.root, folders)
        found, ends = Found(), [0]
        for folder in folders.values():
            list_images(self.root, folder, self.classes, found)
            ends.append(len(found.images))
        self.listing = Listing(found.images)
        self.left_out = found.left_out()
        self.parts = {part: np.arange(*ends[i : i + 2]) for i, part in enumerate(folders)}
        self.fingerprint = fingerprint(found.images, self.classes)
        times = sha256(np.array(found.times, dtype="<i8").tobytes()).hexdigest()
        self.stamp = sha256(f"{self.root.resolve()} {self.fingerprint} {times}".encode()).hexdigest()

    def encoded(self, chunk: int) -> Iterator[bytes]:
        return (self.read(i) for i in self.chunks[chunk])

    def read(self, index: int) -> bytes:
        """An image's file."""
        try:
            return (self.root / self.listing[index].path).read_bytes()
        except OSError as error:
            raise DataError(
                f"{self.where(index)} cannot be read as an image: {error.strerror}; replace or remove it"
            ) from error

    def where(self, index: int) -> str:
        return str(self.root / self.listing[index].path)

    def sample(self) -> Iterator[bytes]:
        return (self.read(i) for i in range(0, len(self.listing), -(-len(self.listing) // SAMPLE)))


def part_folders(root: Path, needed: Sequence[str]) -> dict[str, str]:
    """The folder of each part, by part; {"all": "."} where nothing is needed by name and there is no train/."""
    there = {entry.name for entry in os.scandir(root) if entry.is_dir() and _counts(entry)}
    found = {part: [name for name in names if name in there] for part, names in PART_NAMES.items()}
    for part, names in found.items():
        if len(names) > 1:
            raise DataError(
                f"{root} has {' and '.join(f'{n}/' for n in names)}; which one is the {part} part? keep one of them"
            )
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
    """The class folders of a set that follows no list, sorted by name. Raises DataError where there are fewer than
    two.
    """
    folder = root / folders.get("train", ".")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and _counts(entry))
    if len(found) < 2:
        raise DataError(
            f"{folder} has {len(found)} class folder(s); needed are two or more, in train/ or by themselves"
        )
    return tuple(found)


def list_images(root: Path, part: str, classes: Sequence[str], found: Found) -> None:
    """Adds the images below `root/part/CLASS/`, however deep, sorted by class and path; a label is a class's place in
    `classes`.

    Raises DataError where the part's folders are not exactly `classes`, or a class has no image.
    """
    folder = root / part
    entries = [entry for entry in os.scandir(folder) if _counts(entry)]
    names = {entry.name for entry in entries if entry.is_dir()}
    if names != set(classes):
        raise DataError(f"{folder}: {difference(names, classes, 'class folders')}")
    found.beside += sum(suffix_of(entry.name) in EXTENSIONS and entry.name not in names for entry in entries)
    for label, name in enumerate(classes):
        files = sorted(
            entries_below(folder / name, above=(root, folder), skipped=NO_PICTURES), key=lambda file: file[0]
        )
        taken = [file for file in files if suffix_of(file[0]) in EXTENSIONS]
        if not taken:
            raise DataError(
                f"{folder / name} holds no image; allowed are files ending in {', '.join(sorted(EXTENSIONS))}"
            )
        found.other_kinds.update(suffix for path, _ in files if (suffix := suffix_of(path)) not in EXTENSIONS)
        prefix = name if part == "." else f"{part}/{name}"
        for path, entry in taken:
            stat = entry.stat()
            found.images.append(ImageFile(f"{prefix}/{path}", label, stat.st_size))
            found.times.append(stat.st_mtime_ns)


def _counts(entry: os.DirEntry[str]) -> bool:
    """Whether it may be a picture or hold some: not hidden, nor what file servers and archives put there."""
    return is_included(entry.name, NO_PICTURES)


def difference(found: set[str], expected: Sequence[str], what: str) -> str:
    """What is missing of the expected classes and what is too much, the first few by name; `what` names where they were
    looked for.
    """
    if not found:
        return f"no {what} in it; needed are {len(expected)}, such as {_some(set(expected))}"
    parts = [(set(expected) - found, "missing"), (found - set(expected), "not in the list")]
    told = "; ".join(f"{len(names)} {how} ({_some(names)})" for names, how in parts if names)
    return f"its {what} are not the {len(expected)} of the list: {told}"


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
