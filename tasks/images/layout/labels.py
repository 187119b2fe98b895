"""Files that name the class of each image of a folder without class folders."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tasks.base import DataError
from tasks.storage.encodings import decoding
from tasks.storage.split_names import SPLIT_WORDS
from tasks.storage.user_files import reading

SOLUTION = "LOC_val_solution.csv"  # of Kaggle's ImageNet: ImageId, and the class in front of the boxes
TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # of ImageNet's development kit: one number per image
META = "meta.mat"  # of the same kit: the class of each number
KIT = "ILSVRC2012_devkit_t12/data"
TRUTH_IMAGE = "ILSVRC2012_val_{:08}"


@dataclass(frozen=True)
class Labels:
    """The class of each image: by its file name, or by the name without suffix.

    file: where they were read from.
    """

    file: Path
    classes: Mapping[str, str]

    def class_of(self, name: str) -> str | None:
        """The class of an image file; None if it is not in the labels file."""
        return self.classes.get(name, self.classes.get(Path(name).stem))


def find_labels(root: Path, folder: Path) -> Labels | None:
    """The labels of the images in one folder, from the first labels file that exists.

    Args:
        root: The folder of the set, where the file may be.
        folder: The folder of the part, where it may be too.

    Returns:
        The labels; None if there is no such file.

    Raises:
        DataError: The file is not of its form.
    """
    for place in (root, folder, root / KIT):
        for name in names_of(folder):
            file = place / name
            with reading(file):
                if not file.is_file():
                    continue
            classes = _from_truth(file) if name == TRUTH else _from_solution(file) if name == SOLUTION else _pairs(file)
            return Labels(file, classes)
    return None


def names_of(folder: Path) -> tuple[str, ...]:
    """The names of labels files of a part, the usual one first."""
    part = SPLIT_WORDS.get(folder.name.casefold())
    words = [folder.name, *(word for word, named in SPLIT_WORDS.items() if part and named == part)]
    own = (f"{word}_{what}.txt" for word in dict.fromkeys(words) for what in ("labels", "annotations"))
    return (*own, *((SOLUTION, TRUTH) if part == "valid" else ()))


def _lines(file: Path) -> list[str]:
    with reading(file), decoding(file):
        return file.read_text("utf-8-sig").splitlines()


def _pairs(file: Path) -> dict[str, str]:
    """Lines of a file name and a class, separated by white space; after a tab, more may follow."""
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in line else re.split(r"\s+", line.strip(), maxsplit=1)
        if len(parts) < 2:
            raise DataError(f"{file}, line {number}: {line!r} is not a file name and a class, separated by a space")
        name = Path(parts[0].strip()).name
        if found.setdefault(name, parts[1].strip()) != parts[1].strip():
            raise DataError(f"{file}, line {number}: {name} has a second class; remove one of the lines")
    return found


def _from_solution(file: Path) -> dict[str, str]:
    rows = list(csv.reader(_lines(file)))
    found = {row[0]: row[1].split()[0] for row in rows[1:] if len(row) == 2 and row[1].strip()}
    if rows[:1] != [["ImageId", "PredictionString"]] or len(found) < len([row for row in rows[1:] if row]):
        raise DataError(f"{file} is not Kaggle's file of ImageId and PredictionString; fetch it again")
    return found


def _from_truth(file: Path) -> dict[str, str]:
    meta = next((place for place in (file.with_name(META), file.parent / KIT / META) if place.is_file()), None)
    if meta is None:
        raise DataError(
            f"{file} holds numbers of classes, whose names are in {META} of the same development kit; copy data/{META} "
            "next to it"
        )
    ids, numbers = _classes_by_number(meta), _lines(file)
    for line, number in enumerate(numbers, 1):
        if number.strip() not in ids:
            raise DataError(f"{file}, line {line}: {number!r} is not a number of {meta}; fetch both again")
    return {TRUTH_IMAGE.format(line): ids[number.strip()] for line, number in enumerate(numbers, 1)}


def _classes_by_number(meta: Path) -> dict[str, str]:
    from scipy.io import loadmat

    with reading(meta):
        content = BytesIO(meta.read_bytes())
    try:
        table = loadmat(content, squeeze_me=True)["synsets"]
        return {str(int(n)): str(name) for n, name in zip(table["ILSVRC2012_ID"], table["WNID"], strict=True)}
    except Exception as error:  # the library raises many types about damaged files
        raise DataError(f"{meta} is not the list of classes of ImageNet's development kit; fetch it again") from error


def how_to_label(folder: Path, classes: Sequence[str]) -> str:
    """What a user can do about images without class folders: a phrase."""
    names = names_of(folder)
    official = f", or ImageNet's {SOLUTION}, or {TRUTH} with {META}" if SOLUTION in names else ""
    return f"put their classes into {names[0]}, one line FILE CLASS per image, such as 'a.jpg {classes[0]}'{official}"
