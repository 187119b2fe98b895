"""What tests read from a set of images: its labelled pixels."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np

from tasks.images.file_options import SizedImageOptions

SMALL = SizedImageOptions(image_size=32, patch=8)


def labelled_pixels(task: Any) -> set[tuple[str, str, str]]:
    """(part, class, sha256 of the pixels) of every image; the part "train" includes the validation images."""
    task.load()
    parts = {"train": "train", "valid": "train", "test": "test"}
    return {
        (
            parts[split],
            task.set.classes[task.set.listing.labels[i]],
            sha256(np.asarray(task._reader.read(i)).tobytes()).hexdigest(),
        )
        for split, index in task.index.items()
        for i in index.tolist()
    }
