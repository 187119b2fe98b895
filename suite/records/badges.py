"""Badges: what the maintainers checked of published records, when and on which machine.

`badges.json` is in the folder of the boards, outside every entry, and `suite verify --badge` writes it: what an author
writes in an entry gives no badge. A badge names hashes of records, so that an edited record has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from suite.config.run_config import Strict
from suite.errors import UserError
from suite.records import strict_json
from suite.records.schema import Name, Sha256
from tasks.storage.cache import write_atomically

NAME = "badges.json"
MAX_BYTES = 2**24
Kind = Literal["reported", "replayed", "reproduced"]
#: From the weakest to the strongest.
ORDER: tuple[Kind, ...] = ("reported", "replayed", "reproduced")
#: Seeds of a row that must be trained again for `reproduced`.
LEAST_SEEDS = 3


def _is_a_date(text: str) -> str:
    date.fromisoformat(text)
    return text


class Reproduction(Strict):
    """The figures of a row whose runs were trained again: means over equal seeds, of the primary metric on test.

    recorded: by the author's records.
    trained: by the runs of the machine that trained them again.
    deviation: of a run's figure between trainings that round otherwise, calibrated over the same seeds.
    allowed: how far the two means may be apart.
    """

    task: Name
    scale: Name
    mixer: Name
    metric: Name
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=LEAST_SEEDS)
    recorded: float
    trained: float
    deviation: Annotated[float, Field(ge=0)]
    allowed: Annotated[float, Field(ge=0)]

    @property
    def difference(self) -> float:
        """Recorded minus trained."""
        return self.recorded - self.trained

    @property
    def agrees(self) -> bool:
        """Whether the means are no further apart than allowed."""
        return abs(self.difference) <= self.allowed


class Checked(Strict):
    """One verification: every record of it holds its badge.

    badge: `reported`: hash and recount agree; `replayed`: its first steps were trained again; `reproduced`: it was
        trained again on another machine, with at least two other seeds.
    day: ISO 8601.
    machine: the processor.
    records: hashes.
    figures: of a badge `reproduced`, and of no other.
    """

    badge: Kind
    day: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(_is_a_date)]
    machine: Name
    records: tuple[Sha256, ...]
    figures: Reproduction | None = None

    @model_validator(mode="after")
    def _figures_agree(self) -> Checked:
        if (self.badge == "reproduced") != (self.figures is not None):
            raise ValueError("a badge `reproduced` has figures, and no other has")
        if self.figures is not None and not self.figures.agrees:
            raise ValueError("its figures differ by more than is allowed")
        return self


class Badges(Strict):
    """The document of all badges."""

    schema_: Literal["mixer-suite/badges/1"] = Field(default="mixer-suite/badges/1", alias="schema")
    checked: tuple[Checked, ...]


@dataclass(frozen=True)
class Badge:
    """The badge of a record, and the latest verification that gave it, with the figures of one that reproduced it."""

    kind: Kind
    day: str
    machine: str
    figures: Reproduction | None = None


@dataclass(frozen=True)
class RowBadge:
    """The strongest badge of a row's records, how many of them have it, and how many records there are."""

    badge: Badge
    count: int
    records: int


def read(folder: Path) -> Badges:
    """The badges of a folder of boards.

    Args:
        folder: with `badges.json`; without, there are none.

    Returns:
        The document.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return Badges(checked=())
    try:
        return Badges.model_validate(strict_json.parse(strict_json.read_text(path, MAX_BYTES)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def by_record(document: Badges) -> dict[str, Badge]:
    """The badge of each record.

    Args:
        document: from `read`.

    Returns:
        Hash of a record → its strongest badge, of equal ones the latest.
    """
    found: dict[str, Badge] = {}
    for checked in document.checked:
        badge = Badge(checked.badge, checked.day, checked.machine, checked.figures)
        for digest in checked.records:
            known = found.get(digest)
            if known is None or (ORDER.index(badge.kind), badge.day) >= (ORDER.index(known.kind), known.day):
                found[digest] = badge
    return found


def of_row(badges: Mapping[str, Badge], hashes: Iterable[str]) -> RowBadge | None:
    """The badge of a row.

    Args:
        badges: from `by_record`.
        hashes: of the row's records.

    Returns:
        The strongest badge of a record; None unless all records have one.
    """
    held = [badges.get(digest) for digest in hashes]
    found = [badge for badge in held if badge is not None]
    if not found or len(found) < len(held):
        return None
    best = max(found, key=lambda badge: (ORDER.index(badge.kind), badge.day))
    return RowBadge(best, sum(badge.kind == best.kind for badge in found), len(found))


def add(folder: Path, new: Iterable[Checked]) -> Path:
    """Adds verifications, in place of earlier ones of the same badge for the same records.

    Args:
        folder: of the boards.
        new: verifications.

    Returns:
        The file.

    Raises:
        UserError: the file there is damaged.
        OSError: it cannot be written.
    """
    kept, added = list(read(folder).checked), [each for each in new if each.records]
    for each in added:
        gone = set(each.records)
        left = [
            old.model_copy(update={"records": tuple(sorted(set(old.records) - gone))})
            if old.badge == each.badge
            else old
            for old in kept
        ]
        kept = [old for old in left if old.records]
    document = Badges(checked=(*kept, *added))
    content = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    path = folder / NAME
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path
