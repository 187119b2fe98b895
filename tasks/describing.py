"""How a task describes itself: its domain, its metrics, its options, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

Domain = Literal["language", "vision", "forecasting", "recall"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)
CAUSAL_DOMAINS: tuple[Domain, ...] = ("language", "recall")  # their backbones see no later token


@dataclass(frozen=True)
class Metric:
    """A reported number: its name, its direction, its unit, and how many digits a table shows."""

    name: str
    higher_is_better: bool
    unit: str = ""
    digits: int = 3


class TaskOptions(BaseModel):
    """The options of a task that can change a result. Subclasses add fields; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tuned(self) -> frozenset[str]:
        """Options that may be tuned on validation for each mixer, like its learning rate: runs that differ in them
        share a board.

        Returns:
            Names of fields.
        """
        return frozenset()

    def portable(self) -> dict[str, Any]:
        """The options as they enter a run's identity: a file counts by its content, not by its path.

        Returns:
            JSON values, by the names of the fields.
        """
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class DataInfo:
    """A task's data as `suite data info` shows them."""

    source: str
    licence: str
    splits: Mapping[str, int]  # size of each split, in `unit`
    unit: str  # bytes, tokens, images, windows, ...
    fingerprint: str  # sha256 over the content, "" where there are no data yet
    embedded: bool
    notes: tuple[str, ...] = field(default=())
    extra: Mapping[str, Any] = field(default_factory=dict)
