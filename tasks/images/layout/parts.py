"""The parts of a folder of images (train/, val/, test/, by any of their usual names) and its class folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.base import DataError
from tasks.storage.split_names import SPLIT_WORDS, split_named_by
from tasks.storage.user_files import is_folder, is_included

PART_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SKIPPED_FOLDERS = frozenset({"@eaDir", "__MACOSX"})  # written by file servers and archives
MAX_NAMED = 5  # folders in a message
MIN_EQUAL_SUBFOLDERS = 2  # one that all classes have, such as images/, is usual


def subfolders(folder: Path) -> list[str]:
    """The folders in a folder that count, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_included(entry.name, SKIPPED_FOLDERS) and is_folder(entry))


def part_folders(root: Path, needed: Sequence[str]) -> dict[str, str]:
    """The folder of each part of a set.

    A part is a folder whose name is a split word in any case (`train`, `Training`), or contains one (`seg_train`) and
    holds folders.

    Args:
        root: The folder of the set.
        needed: The parts to read; (): all.

    Returns:
        The folder's name by part, or {"all": "."} if no part is needed and the folders of `root` are the classes.

    Raises:
        DataError: A needed part is missing, two folders are the same part, or the folders name splits without train/.
    """
    folders = subfolders(root)
    found = {part: _candidates(root, folders, part) for part in PART_NAMES}
    for part, names in found.items():
        if len(names) > 1 and (part in needed or not needed):
            both = " and ".join(f"{name}/" for name in names)
            raise DataError(f"{root} has {both}, which both name the {part} part; keep one of them")
    for part in needed:
        if not found[part]:
            wanted = " and ".join(f"{PART_NAMES[p][0]}/" for p in needed)
            lacks = f"{root} has no {PART_NAMES[part][0]}/ (found: {_listed(folders)})"
            raise DataError(f"{lacks}; the task needs {wanted}, each with one folder per class")
    if not needed and (not found["train"] or _is_class_called_train(root, folders)):
        _refuse_splits_as_classes(root, folders)
        return {"all": "."}
    return {part: names[0] for part, names in found.items() if names and (part in needed or not needed)}


def unused_folders(root: Path, used: Mapping[str, str]) -> list[str]:
    """The folders next to the parts that are not read."""
    return [] if "." in used.values() else [name for name in subfolders(root) if name not in used.values()]


def find_classes(root: Path, folders: Mapping[str, str]) -> tuple[str, ...]:
    """The class folders of a set without a given list, sorted by name.

    Args:
        root: The folder of the set.
        folders: The folder of each part, as `part_folders` finds them.

    Returns:
        The names of the classes.

    Raises:
        DataError: There are fewer than two, or they are not classes, since all of them hold the same folders.
    """
    folder = root / folders.get("train", ".")
    found = subfolders(folder)
    if len(found) < 2:
        inner = f" ({found[0]}/)" if found else ""
        raise DataError(
            f"{folder} has {len(found)} class folder(s){inner}, at least two are needed; make one folder per class, in "
            "train/ or directly in the folder"
        )
    _refuse_equal_contents(folder, found)
    return tuple(found)


def _candidates(root: Path, folders: Sequence[str], part: str) -> list[str]:
    exact = [name for name in folders if SPLIT_WORDS.get(name.casefold()) == part]
    return exact or [name for name in folders if split_named_by(name) == part and subfolders(root / name)]


def _is_class_called_train(root: Path, folders: Sequence[str]) -> bool:
    """Whether train/ is a class (a vehicle) among others: it holds no folders, and no other name is that of a split."""
    others = [name for name in folders if split_named_by(name) is None]
    trains = [name for name in folders if name not in others]
    return len(trains) == 1 and len(others) > 1 and not subfolders(root / trains[0])


def _refuse_splits_as_classes(root: Path, folders: Sequence[str]) -> None:
    named = [name for name in folders if split_named_by(name) is not None and not _is_train_among(name, folders)]
    splits = [name for name in named if name.casefold() in SPLIT_WORDS or subfolders(root / name)]
    if splits or (named and len(named) == len(folders)):
        raise DataError(
            f"{root}: {_listed(splits or named)} would be a class, but the name is that of a split, and there is no "
            "training part; name the folder of the training part train, or rename the class"
        )


def _is_train_among(name: str, folders: Sequence[str]) -> bool:
    return split_named_by(name) == "train" and any(split_named_by(other) is None for other in folders)


def _refuse_equal_contents(folder: Path, classes: Sequence[str]) -> None:
    """Raises DataError if all "classes" that hold folders hold the same: these are then the classes, those above parts.

    A "class" without folders may be a part as well, of images without labels.
    """
    inside = {name: found for name in classes if (found := set(subfolders(folder / name)))}
    shared = set.intersection(*inside.values()) if len(inside) > 1 else set()
    if len(shared) >= MIN_EQUAL_SUBFOLDERS:
        named = tuple(inside)
        raise DataError(
            f"{folder}: {_listed(named)} all hold the same folders ({_listed(sorted(shared))}), so they are parts of "
            f"the set, not classes; name them train, val and test, or pass one of them: --data-dir {folder / named[0]}"
        )


def _listed(folders: Sequence[str]) -> str:
    named = ", ".join(f"{name}/" for name in folders[:MAX_NAMED]) or "no folder"
    return named + (", …" if len(folders) > MAX_NAMED else "")
