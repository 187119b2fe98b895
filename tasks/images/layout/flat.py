"""A part whose images are in one folder, without class folders: their classes come from a labels file."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.base import DataError
from tasks.images.layout.labels import Labels, find_labels, how_to_label
from tasks.images.layout.parts import SKIPPED_FOLDERS, subfolders
from tasks.storage.split_names import split_named_by
from tasks.storage.user_files import is_included, suffix_of

INNER = "images"  # a folder in the part that holds all of its images, as in Tiny ImageNet


@dataclass(frozen=True)
class FlatPart:
    """The images of a part by class, sorted by name, and how many images and labels are not used.

    folder: where the images are.
    """

    folder: Path
    images: dict[str, list[os.DirEntry[str]]]
    other_classes: int
    absent: int


def find_flat(
    root: Path, part: str, classes: Sequence[str], others: Collection[str], extensions: Collection[str]
) -> FlatPart | None:
    """The images of a part without class folders.

    Args:
        root: The folder of the set.
        part: The name of the part's folder in it.
        classes: The classes of the set.
        others: Names of classes that images may have but that are not used.
        extensions: Suffixes of image files.

    Returns:
        The images; None if the part has class folders, or no images.

    Raises:
        DataError: There is no labels file, or it does not fit the images.
    """
    folder = root / part
    inner = subfolders(folder)
    if inner == [INNER] and INNER not in classes:
        folder = folder / INNER
    elif inner:
        return None
    with os.scandir(folder) as entries:
        every = (entry for entry in entries if is_included(entry.name, SKIPPED_FOLDERS))
        images = sorted(
            (entry for entry in every if suffix_of(entry.name) in extensions and entry.is_file()),
            key=lambda entry: entry.name,
        )
    if not images:
        return None
    labels = find_labels(root, root / part)
    if labels is None:
        raise DataError(_unlabelled(root, part, len(images), classes))
    return _by_class(folder, images, labels, classes, others)


def _unlabelled(root: Path, part: str, count: int, classes: Sequence[str]) -> str:
    valid = next((name for name in subfolders(root) if split_named_by(name) == "valid" and name != part), "")
    then = f", then {valid}/ is the test split" if valid else ""
    found = f"{root / part} holds {count:,} image{'s' * (count > 1)} but no class folders, so no labels"
    return (
        f"{found}; {how_to_label(root / part, classes)}; or make one folder per class; images without labels cannot be "
        f"used: move {part}/ away{then}"
    )


def _by_class(
    folder: Path, images: Sequence[os.DirEntry[str]], labels: Labels, classes: Sequence[str], others: Collection[str]
) -> FlatPart:
    found: dict[str, list[os.DirEntry[str]]] = {name: [] for name in classes}
    missing, unused = [], 0
    for entry in images:
        name = labels.class_of(entry.name)
        if name is None:
            missing.append(entry.name)
        elif name in found:
            found[name].append(entry)
        elif name in others:
            unused += 1
        else:
            some = ", ".join(classes[:3]) + (", …" * (len(classes) > 3))
            raise DataError(f"{labels.file}: {entry.name} has the class {name!r}, which is none of the set's: {some}")
    if missing:
        raise DataError(
            f"{labels.file} has no line for {len(missing):,} of the {len(images):,} images in {folder}, such as "
            f"{missing[0]}; add them, or move these images away"
        )
    empty = [name for name, some in found.items() if not some]
    if empty:
        raise DataError(
            f"{folder}: {labels.file.name} gives no image to {len(empty):,} of the {len(classes):,} classes, such as "
            f"{empty[0]}; add images of them"
        )
    return FlatPart(folder, found, unused, len(labels.classes) - (len(images) - len(missing)))
