"""What an attack is, and how one is listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.suite.submissions.made import Content, forge, path_of

Answer = Literal["recount", "ranges", "replay", "reproduced"]
Forge = Callable[[Path], object]


@dataclass(frozen=True)
class Attack:
    """name: in docs/security.md; answer: what finds it; words: part of its message; forge: changes `entries/ada`."""

    name: str
    answer: Answer
    words: str
    forge: Callable[[Path], object]


ATTACKS: list[Attack] = []


def attack(
    name: str, answer: Answer, words: str = ""
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def add(function: Callable[[Path], object]) -> Callable[[Path], object]:
        ATTACKS.append(Attack(name, answer, words, function))
        return function

    return add


def of_record(name: str, answer: Answer, words: str, change: Callable[[Content], object], mixer: str = "fem") -> None:
    """An attack that changes one record and computes everything again."""
    ATTACKS.append(Attack(name, answer, words, lambda folder: forge(folder, change, path_of(folder, mixer))))


def set_metric(split: str, value: object, name: str = "top1") -> Callable[[Content], object]:
    return lambda content: content["metrics"][split].update({name: value})


def without_reading(folder: Path, old: str, new: str, path: Path | None = None) -> None:
    """Replaces text of a record's file, which may then be no JSON."""
    path = path or path_of(folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
