"""Which files of a folder are tables of images: Parquet files named as on the hub, or what `save_to_disk` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.base import DataError
from tasks.images.layout.parts import PART_NAMES
from tasks.storage.arrow_files import ARROW, require_whole
from tasks.storage.split_names import split_named_by

SHARD = re.compile(r"(?P<part>[a-z]+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.parquet")


def find_tables(root: Path, needed: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The Parquet or Arrow files of each part of a set.

    Args:
        root: The folder of the set.
        needed: The parts to read; (): all.

    Returns:
        The files by part, "all" for Arrow files without parts; {} if there are none.

    Raises:
        DataError: Files or parts are missing, or files have other names.
    """
    return find_parquet_files(root, needed) or find_saved(root, needed)


def find_saved(root: Path, needed: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The Arrow files of each part, as `save_to_disk` of Hugging Face datasets writes them: directly in `root` for a
    set without parts, else in one folder per part. The rest as in `find_tables`.
    """
    found: dict[str, list[Path]] = {}
    every = sorted([*root.glob(f"*{ARROW}"), *root.glob(f"*/*{ARROW}")])
    for path in every:
        part = "all" if path.parent == root else split_named_by(path.parent.name)
        if part and (part in needed or not needed):
            found.setdefault(part, []).append(path)
    missing = [part for part in needed if part not in found]
    if every and missing:
        raise DataError(
            f"{root} has no folder of Arrow files of the part {missing[0]}; the task needs {' and '.join(needed)}"
        )
    require_whole([path for paths in found.values() for path in paths])
    return {part: found[part] for part in ("all", *PART_NAMES) if part in found}


def find_parquet_files(root: Path, needed: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The Parquet files of each part, in `root` or one folder below; {} if there are none.

    They are named `PART-NNNNN-of-NNNNN.parquet`, as on the hub; the parts are those in `needed`, or all if it is empty.
    Raises DataError if files are missing or have other names.
    """
    every = [path for pattern in ("*.parquet", "*/*.parquet") for path in root.glob(pattern)]
    found: dict[str, list[Path]] = {}
    for path in sorted(every):
        name = SHARD.fullmatch(path.name)
        part = next((part for part, names in PART_NAMES.items() if name and name["part"] in names), None)
        if part and (part in needed or not needed):
            found.setdefault(part, []).append(path)
    if every and not found:
        raise DataError(
            f"{root}: {every[0].name} is not a name of the hub; rename it, for example to train-00000-of-00001.parquet"
        )
    for part, paths in found.items():
        _require_whole(root, part, paths)
    missing = [part for part in needed if part not in found]
    if found and missing:
        raise DataError(f"{root} has no Parquet files of the part {missing[0]}; the task needs {' and '.join(needed)}")
    return {part: found[part] for part in PART_NAMES if part in found}


def _require_whole(root: Path, part: str, paths: Sequence[Path]) -> None:
    names = [name for path in paths if (name := SHARD.fullmatch(path.name))]
    counts = {int(name["count"]) for name in names}
    numbers = sorted(int(name["number"]) for name in names)
    if len(counts) > 1 or numbers != list(range(max(counts))):
        missing = sorted(set(range(max(counts))) - set(numbers))
        what = f"lacks shard {missing[0]:05} of {max(counts):05}" if missing else "has shards of two versions"
        raise DataError(f"{root}: the part {part} {what}; download all files again at one version")
