"""What tests read from a set of images: its labelled pixels."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from tasks.images.file_options import SizedImageOptions
from tasks.images.file_task import FileImageTask
from tasks.images.readers import Reader

SMALL = SizedImageOptions(image_size=32, patch=8)


def reader_of(task: FileImageTask) -> Reader:
    """The reader of a task, which is loaded if it was not."""
    task.load()
    assert task._reader is not None
    return task._reader


def labelled_pixels(task: FileImageTask) -> set[tuple[str, str, str]]:
    """(part, class, sha256 of the pixels) of every image; the part "train" includes the validation images."""
    reader = reader_of(task)
    parts = {"train": "train", "valid": "train", "test": "test"}
    return {
        (
            parts[split],
            task.set.classes[task.set.listing.labels[i]],
            sha256(np.asarray(reader.read(i)).tobytes()).hexdigest(),
        )
        for split, index in task.index.items()
        for i in index.tolist()
    }
