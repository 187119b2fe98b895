"""What a baseline is: a whole model of another kind than the backbones of mixers, for the tasks of one domain.

A baseline is trained on the same data, by the same runner and with the same metrics as the mixers. It is not sized to
a budget and never ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import nn

from backbones.mixers.base import MixerConfig
from backbones.mixers.errors import MixerError
from backbones.series_outputs import HeadKind

PREFIX = "baseline/"


class BaselineError(MixerError):
    """A baseline that is unknown or cannot be built. The message is one line for the user."""


class BaselineOptions(MixerConfig):
    """A baseline's options are given where a mixer's are; it ignores `causal` and `heads`."""


class SeriesSizes(Protocol):
    """The sizes of a forecasting task's windows, in steps; `season` is 0 where it is unknown."""

    @property
    def channels(self) -> int: ...
    @property
    def look_back(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    @property
    def patch(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def season(self) -> int: ...
    @property
    def head(self) -> HeadKind: ...


class ReferenceShape(Protocol):
    """The shape of the task's softmax reference, for baselines that are built with the same one."""

    @property
    def dim(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def ffn_width(self) -> int: ...
    @property
    def dropout(self) -> float: ...


Chosen = TypeVar("Chosen", bound=BaselineOptions)


@dataclass(frozen=True)
class Baseline(Generic[Chosen]):
    """One baseline.

    domain: of the tasks that it is for.
    Options: the class of its options.
    build: the model for given sizes; raises BaselineError where there is none for them.
    version: to raise when the same options come to compute something else, as for mixers.
    closed_form: whether it is fitted without steps.
    """

    domain: str
    Options: type[Chosen]
    build: Callable[[SeriesSizes, Chosen, ReferenceShape], nn.Module]
    version: int = 1
    closed_form: bool = False
