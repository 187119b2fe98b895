"""What a task is: data, batches, a loss, metrics, and what it asks of a backbone.

A task knows nothing of backbones or mixers. It describes its inputs (`InputSpec`) and the runner builds a backbone for
them.

Shape letters: B batch, T tokens, C channels, S image side, N look-back, H horizon, V vocabulary or classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # importing torch takes seconds, and `suite list tasks` needs none of it
    from torch import Tensor

Split = Literal["train", "valid", "test"]
Domain = Literal["language", "vision", "forecasting", "recall"]
HeadName = Literal["point", "student-t", "quantile"]


class DataError(Exception):
    """The data are missing, damaged or not what the task expects. The message is one line for the user."""

    exit_code = 2


@dataclass(frozen=True)
class TextInput:
    """Token ids `[B, T]` in `[0, vocab)`, T ≤ length; logits `[B, T, vocab]`. Causal."""

    vocab: int
    length: int
    kind: Literal["text"] = "text"
    causal: bool = True


@dataclass(frozen=True)
class ImageInput:
    """Images `[B, channels, height, width]`, float, normalised; logits `[B, classes]`. `patch` is the patch side in
    pixels.
    """

    channels: int
    height: int
    width: int
    patch: int
    classes: int
    kind: Literal["image"] = "image"
    causal: bool = False


@dataclass(frozen=True)
class SeriesInput:
    """Windows `[B, look_back, channels]`, standardised; forecasts `[B, horizon, channels]`, or with a last dimension of
    `outputs` values.

    head: a point; nine quantiles, 0.1 to 0.9; or a Student-t's location, scale > 0 and degrees of freedom > 2.
    """

    channels: int
    look_back: int
    horizon: int
    patch: int
    stride: int
    season: int = 0  # steps of a day, or of a week of days; 0 where it is not known
    head: HeadName = "point"
    kind: Literal["series"] = "series"
    causal: bool = False

    @property
    def outputs(self) -> int:
        """Values that describe the forecast of one step."""
        return {"point": 1, "quantile": 9, "student-t": 3}[self.head]


InputSpec = TextInput | ImageInput | SeriesInput


@dataclass(frozen=True)
class Shard:
    """One process's part of the data when several train together: part `rank` of `world` equal ones, 0 ≤ rank < world.

    Parts are contiguous: joined in the order of the ranks, they are the rows that a single process sees.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}: ranks are 0 to world - 1")

    def rows(self, batch_size: int) -> slice:
        """The rows of each global batch that this process trains on. All processes have equally many."""
        if batch_size % self.world:
            least = -(-batch_size // self.world) * self.world
            raise DataError(
                f"a batch of {batch_size} examples does not divide among {self.world} processes; "
                f"choose a multiple of {self.world}: --set batch_size={least}"
            )
        return self.part(batch_size)

    def part(self, n: int) -> slice:
        """This process's part of n examples in order; the parts differ by at most one example, and may be empty."""
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)


WHOLE = Shard()  # of a single process: everything


@dataclass(frozen=True)
class Batch:
    """One batch: what the backbone reads and what the loss compares with. `size` counts examples (sequences, images,
    windows).
    """

    inputs: Tensor
    targets: Tensor

    @property
    def size(self) -> int:
        return self.inputs.shape[0]

    def to(self, device: Any) -> Batch:
        return Batch(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True))


@dataclass(frozen=True)
class Metric:
    """A reported figure: its name, its direction, its unit, and how many digits a table shows."""

    name: str
    higher_is_better: bool
    unit: str = ""
    digits: int = 3


class TaskOptions(BaseModel):
    """The options of a task that can change a result. Subclasses add fields; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tuned(self) -> frozenset[str]:
        """Names of options that validation may choose for each mixer, like its learning rate: runs that differ in them
        share a board.
        """
        return frozenset()

    def portable(self) -> dict[str, Any]:
        """The options as JSON values that do not change when a file of theirs moves: what a run's identity holds."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class DataInfo:
    """What `suite data info` tells of a task's data."""

    source: str
    licence: str
    splits: Mapping[str, int]  # examples (bytes of text, images, windows) a split
    unit: str  # what the splits count
    fingerprint: str  # sha256 over the content, "" where no data are at hand
    embedded: bool
    notes: tuple[str, ...] = field(default=())
    extra: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One task. Building it reads no data (`suite budget` needs none); `load` does, and checks them against the
    fingerprint.

    Batches are a pure function of (split, seed, step): resuming at a step needs no replay, and every mixer sees the
    same ones.
    """

    name: ClassVar[str]
    domain: ClassVar[Domain]
    summary: ClassVar[str]  # one line for `suite list tasks`
    protocol: ClassVar[str]  # version of data preparation + split + metrics, for example "sotu/1"
    Options: ClassVar[type[TaskOptions]] = TaskOptions
    needs_data_dir: ClassVar[bool] = False

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        self.options = options if options is not None else self.Options()
        self.data_dir = data_dir

    @property
    @abstractmethod
    def spec(self) -> InputSpec:
        """What a backbone must read and give. Needs no data."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The reported figures, the primary one first."""

    @property
    def primary(self) -> Metric:
        return self.metrics[0]

    @abstractmethod
    def load(self) -> None:
        """Reads the data, checks them, keeps them in memory or opens them. Idempotent. Raises `DataError`."""

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Checks the data once and thoroughly, before long runs; `progress(done, total)` is called on the way. Raises
        `DataError`.
        """
        self.load()

    def prepare_note(self) -> str:
        """What `load` and `prepare` will write, how much and where, in words; empty where nothing. Raises
        `DataError`.
        """
        return ""

    @abstractmethod
    def info(self) -> DataInfo:
        """Describes the data; loads them when they are at hand. Raises `DataError` when they are damaged."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of all splits in use. Valid after `load`."""

    @abstractmethod
    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        """Endless shuffled, augmented batches from step `start_step` on; the batch at a step depends on (seed, step)
        only.

        `batch_size` is that of the global batch: of it, a process yields the rows `shard.rows(batch_size)`. What is
        drawn for an example depends on its place in the global batch, so the shards' batches joined are bit for bit
        the batch of a single process. Raises `DataError` where the processes cannot have equally many rows.
        """

    @abstractmethod
    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Every example of the split exactly once, in a fixed order; the last batch may be smaller.

        A shard has the examples `shard.part(n_examples)` of that order, `batch_size` at a time: together, the shards
        have every example exactly once, without padding. A shard of a small split may have none.
        """

    @abstractmethod
    def n_examples(self, split: Split) -> int:
        """How many examples `eval_batches` gives in all, over all shards. The runner asserts that as many were
        evaluated.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The training loss of a batch, a scalar mean."""

    @abstractmethod
    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        """Sums and counts of a batch, by name, for `summarise`: never means, so the result does not depend on the batch
        size.

        Sums are accumulated in float64.
        """

    @abstractmethod
    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """The metrics, by name (`loss` among them), from the totals over a split."""


class TextTask(Task):
    """A task over text: token ids of a string, and the bytes that token ids stand for."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, at least one: an empty text gives the token that begins a document."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of token ids (a single id may be a part of a character)."""

    def keep_tokenizer(self, folder: Path) -> None:
        """Writes what `encode` and `decode` need beside options into a run's folder, so that its model is of use
        without the data.
        """
        return

    def use_tokenizer(self, folder: Path) -> None:
        """Takes what `keep_tokenizer` wrote into a run's folder, where it is there."""
        return
