"""The words in names of files and folders that name a split, shared by texts and images."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tasks.base import Split

SPLIT_WORDS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
#: What often follows such a word without a gap: `trainset`, `testdata`, `valimages`.
_ENDINGS = re.compile(r"(?:sets?|data|images?|imgs?|files?|split|folder)$")
_WORDS = (re.compile(r"[A-Za-z]+"), re.compile(r"[A-Z]?[a-z]+|[A-Z]+"))


def split_named_by(name: str) -> Split | None:
    """The split that one of the words of a name stands for: `Training`, `seg_test`, `wiki.valid.raw`, `TestSet`.

    Words are separated by anything but letters, or begin with a capital; a word such as `trainset` counts as its split.

    Args:
        name: The name of a file or folder, without those above it.

    Returns:
        The split; None if no word names a split or two words name different ones.
    """
    words = {word.casefold() for form in _WORDS for word in form.findall(name)}
    words |= {_ENDINGS.sub("", word) for word in words}
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None
