"""What the tests read of a set of images: its labelled pixels, and the one line of an error."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from tasks.base import DataError
from tasks.images.file_task import SizedImageOptions

SMALL = SizedImageOptions(image_size=32, patch=8)


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labelled_pixels(task) -> set[tuple[str, str, str]]:
    """(split or "held", class, sha256 of the pixels) of every image; what is held out is told apart from the training
    images by no one.
    """
    task.load()
    held = {"train": "train", "valid": "train", "test": "test"}
    return {
        (
            held[split],
            task.set.classes[task.set.listing.labels[i]],
            sha256(np.asarray(task._reader.read(i)).tobytes()).hexdigest(),
        )
        for split, index in task.index.items()
        for i in index.tolist()
    }
