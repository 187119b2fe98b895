"""A folder of images, one sub-folder a class: listing it, checking it, reading an image as RGB, loading batches with workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tasks.base import Batch, DataError
from tasks.randomness import SAMPLE, seeded

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"})

Key = tuple[int, int, int, int]  # index of the image, seed, step, position in the batch
Transform = Callable[[Image.Image], Tensor]
Mix = Callable[[Batch, int, int], Batch]  # of a batch, a seed and a step


@dataclass(frozen=True)
class ImageFile:
    """One image: its path relative to the data folder ("train/n01440764/a.JPEG"), its class, its size in bytes."""

    path: str
    label: int
    size: int


def list_images(root: Path, part: str, classes: Sequence[str]) -> list[ImageFile]:
    """The images of `root/part/CLASS/`, sorted by path; the label of a class is its place in `classes`.

    Raises DataError where the part is missing, its folders are not exactly `classes`, or a class has no image.
    """
    folder = root / part
    if not folder.is_dir():
        there = ", ".join(sorted(p.name + "/" for p in root.iterdir() if p.is_dir())[:5]) or "no folder at all"
        raise DataError(f"{root} has no {part}/ in it (there is: {there}); needed are train/ and val/, each with one folder a class")
    found = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if found != set(classes):
        raise DataError(f"{folder}: {_difference(found, set(classes))}")
    images = []
    for label, name in enumerate(classes):
        entries = [e for e in os.scandir(folder / name) if Path(e.name).suffix.lower() in EXTENSIONS and not e.name.startswith(".")]
        if not entries:
            raise DataError(f"{folder / name} holds no image; allowed are files ending in {', '.join(sorted(EXTENSIONS))}")
        images += [ImageFile(f"{part}/{name}/{e.name}", label, e.stat().st_size) for e in sorted(entries, key=lambda e: e.name)]
    return images


def _difference(found: set[str], expected: set[str]) -> str:
    """What is missing and what is too much, the first few by name."""
    if not found:
        return f"no class folders in it; needed are {len(expected)}, such as {_some(expected)}"
    parts = [(expected - found, "missing"), (found - expected, "not in the list")]
    told = "; ".join(f"{len(names)} {what} ({_some(names)})" for names, what in parts if names)
    return f"its class folders are not the {len(expected)} of the list: {told}"


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")


def fingerprint(images: Iterable[ImageFile], classes: Sequence[str]) -> str:
    """sha256 over the class list and every image's relative path and size in bytes, sorted by path. The pixels are not read."""
    listed = sorted((image.path, image.size) for image in images)
    return sha256(json.dumps([list(classes), listed]).encode("utf-8")).hexdigest()


def hold_out(images: Sequence[ImageFile], share: float) -> tuple[list[ImageFile], list[ImageFile]]:
    """Splits images into (kept, held out): of every class the `share` whose path has the smallest sha256.

    The number is rounded, at least 1 where a class has two images or more, and 0 where it has one. It depends on names only.
    """
    by_class: dict[int, list[ImageFile]] = {}
    for image in images:
        by_class.setdefault(image.label, []).append(image)
    chosen = set()
    for members in by_class.values():
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        chosen.update(sorted((m.path for m in members), key=lambda path: sha256(path.encode("utf-8")).digest())[:count])
    return [i for i in images if i.path not in chosen], [i for i in images if i.path in chosen]


def read_rgb(path: Path) -> Image.Image:
    """The whole image, decoded, as RGB: grey, palette, CMYK and 16-bit images are converted, transparency is dropped.

    Raises DataError, with the file's name, where it cannot be decoded to its end.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I;16"):  # Pillow would clip to 255
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            # through RGBA, since Pillow warns of palettes with transparency
            return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        reason = str(error).replace(str(path), "it").splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as an image: {reason}; replace or remove it") from error


def check_all(root: Path, images: Sequence[ImageFile], progress: Callable[[int, int], None] | None = None) -> None:
    """Decodes every image. Raises one DataError that counts the bad ones and names the first three."""

    def problem(image: ImageFile) -> str | None:
        try:
            read_rgb(root / image.path)
        except DataError as error:
            return str(error)
        return None

    problems = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(problem, images), 1):
            if found is not None:
                problems.append(found)
            if progress is not None:
                progress(done, len(images))
    if problems:
        more = f" | and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{len(problems)} of {len(images)} images are damaged: {' | '.join(problems[:3])}{more}")


class _Samples(Dataset[Any]):
    """Whole batches of decoded, transformed and mixed images, made in the worker."""

    def __init__(self, root: Path, images: Sequence[ImageFile], transform: Transform, mix: Mix | None) -> None:
        self.root, self.images, self.transform, self.mix = root, images, transform, mix

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor] | str:
        """The batch of these keys, or what is wrong with one of its images: an exception would arrive as a worker's traceback."""
        try:
            pictures = [self._sample(key) for key in keys]
        except DataError as error:
            return str(error)
        batch = Batch(torch.stack(pictures), torch.tensor([self.images[key[0]].label for key in keys]))
        if self.mix is not None:
            batch = self.mix(batch, keys[0][1], keys[0][2])
        return batch.inputs, batch.targets

    def _sample(self, key: Key) -> Tensor:
        index, *where = key
        image = read_rgb(self.root / self.images[index].path)
        with seeded(SAMPLE, *where):
            return self.transform(image)


def _as_they_are(batch: Any) -> Any:
    return batch


def load_batches(
    root: Path, images: Sequence[ImageFile], transform: Transform, keys: Iterable[list[Key]], workers: int, mix: Mix | None = None
) -> Iterator[Batch]:
    """One batch for every list of keys, in order; `mix(batch, seed, step)` may mix its images.

    Each sample is seeded by its own key and each mixture by the batch's first, so the number of workers changes nothing.
    """
    loader = DataLoader(
        _Samples(root, images, transform, mix),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_as_they_are,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    for loaded in loader:
        if isinstance(loaded, str):
            raise DataError(loaded)
        yield Batch(*loaded)
