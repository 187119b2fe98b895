"""The task contract: data, batches, a loss, metrics, and the inputs and outputs that a backbone must have.

A task knows nothing about backbones or mixers. It describes its inputs (`InputSpec`), and the suite builds a backbone
for them. docs/adding-a-task.md shows how to write one; `tasks/contract` checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tasks.batches import WHOLE, Batch, SampledUnits, Shard, Split
from tasks.describing import CAUSAL_DOMAINS, DOMAINS, DataInfo, Domain, Metric, TaskOptions
from tasks.errors import DataError
from tasks.specs import HeadName, ImageInput, InputSpec, SeriesInput, TextInput

if TYPE_CHECKING:  # importing torch takes seconds, and describing a task needs none of it
    from torch import Tensor

__all__ = [
    "CAUSAL_DOMAINS",
    "DOMAINS",
    "WHOLE",
    "Batch",
    "DataError",
    "DataInfo",
    "Domain",
    "HeadName",
    "ImageInput",
    "InputSpec",
    "Metric",
    "SampledUnits",
    "SeriesInput",
    "Shard",
    "Split",
    "Task",
    "TaskOptions",
    "TextInput",
    "TextTask",
]


class Task(ABC):
    """One task. Building it reads no data (`suite budget` needs none); `load` does, and checks them against the
    fingerprint.

    Batches are a pure function of (split, seed, step): resuming at a step needs no replay, and every mixer sees the
    same batches.
    """

    name: ClassVar[str]
    domain: ClassVar[Domain]
    summary: ClassVar[str]  # one line for `suite list tasks`
    protocol: ClassVar[str]  # version of data preparation + split + metrics, for example "sotu/1"
    #: Raise it when data preparation, split or metrics change: records of earlier versions then have their own boards.
    version: ClassVar[int] = 1
    unit: ClassVar[str] = "examples"  # the word for what a batch counts: sequences, images, windows
    Options: ClassVar[type[TaskOptions]] = TaskOptions
    needs_data_dir: ClassVar[bool] = False
    #: Who downloads data that `--data-dir` does not name: a run, only `suite data prepare`, or nobody.
    downloads: ClassVar[Literal["run", "prepare", ""]] = ""
    synthetic: ClassVar[bool] = False  # the examples are drawn by a rule: there are no files
    #: Training yields every example of `eval_batches("train")` once before any comes again.
    has_epochs: ClassVar[bool] = False
    #: The options of a run at each scale, for tasks that are not built in: TOML in the layout of
    #: suite/config/recipes/*.toml, or the path of such a file.
    recipes: ClassVar[str | Path] = ""
    data_decides: ClassVar[frozenset[str]] = frozenset()  # fields of `spec` that are known only with the data

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        """Takes the options, and the folder or file of the data where the task reads any."""
        self.options = options if options is not None else self.Options()
        self.data_dir = data_dir

    @property
    @abstractmethod
    def spec(self) -> InputSpec:
        """The inputs that a backbone reads and the outputs that it gives. Needs no data."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The reported metrics, the primary one first."""

    @property
    def primary(self) -> Metric:
        """The metric that ranks."""
        return self.metrics[0]

    @abstractmethod
    def load(self) -> None:
        """Reads the data, checks them, and keeps them in memory or open. Idempotent.

        Raises:
            DataError: the data are missing, damaged or not the expected ones.
        """

    def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Checks the data once and thoroughly, before long runs.

        Args:
            progress: called with (done, total) on the way.

        Raises:
            DataError: the data are missing, damaged or not the expected ones.
        """
        self.load()

    def prepare_note(self) -> str:
        """What `load` and `prepare` will write, how much and where.

        Returns:
            A phrase for the user; empty where nothing is written.

        Raises:
            DataError: the data are missing.
        """
        return ""

    @abstractmethod
    def info(self) -> DataInfo:
        """Describes the data; loads them where they can be read without a download.

        Returns:
            Source, licence, sizes and fingerprint.

        Raises:
            DataError: the data are damaged.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of all splits in use. Valid after `load`."""

    @abstractmethod
    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        """Endless shuffled, augmented batches; the batch at a step depends on (seed, step) only.

        What is drawn for an example depends on its place in the global batch, so the shards' batches joined are bit
        for bit the batch of a single process.

        Args:
            seed: seed of the order and of every augmentation, ≥ 0.
            batch_size: examples in the global batch, of all processes together.
            start_step: step of the first batch.
            workers: processes that load; they change no batch.
            shard: this process's part; it yields the rows `shard.rows(batch_size)` of each global batch.

        Yields:
            The batches of steps `start_step`, `start_step` + 1, …

        Raises:
            DataError: the data are missing or damaged, or the processes cannot have equally many rows.
        """

    @abstractmethod
    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Every example of a split exactly once, in a fixed order, without padding.

        Args:
            split: which one; `train` is in order and not augmented.
            batch_size: examples per batch of this process; its last batch may be smaller.
            workers: processes that load; they change no batch.
            shard: this process's part, the examples `shard.part(n_examples(split))` of that order. A shard of a small
                split may have none.

        Yields:
            Batches, in order.

        Raises:
            DataError: the data are missing or damaged.
        """

    @abstractmethod
    def n_examples(self, split: Split) -> int:
        """How many examples `eval_batches` yields, over all shards. The suite asserts that as many were evaluated.

        Args:
            split: which one.

        Returns:
            Examples (sequences, images, windows).
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The training loss.

        Args:
            outputs: the backbone's, in the shape that `spec` says; fp32.
            batch: the batch that they were computed from.

        Returns:
            A differentiable scalar, the mean over what is scored.
        """

    def scored_values(self, batch: Batch) -> float:
        """How many values the loss of a batch is the mean over, so that the losses of its parts can be averaged.

        Args:
            batch: a batch, or some of its rows.

        Returns:
            The number of rows, unless the task scores more in some rows than in others.
        """
        return float(batch.size)

    @abstractmethod
    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        """Sums and counts over a batch, accumulated in float64: never means, so that the metrics do not depend on the
        batch size.

        Args:
            outputs: the backbone's, in the shape that `spec` says; fp32.
            batch: an evaluation batch.

        Returns:
            (sum, count) by name. The suite adds them up over the split.
        """

    @abstractmethod
    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """The metrics of a split from its totals.

        Args:
            sums: what `measure` returned, added up over the split.

        Returns:
            Values by name of metric, `loss` among them.
        """

    def test_units(self) -> SampledUnits | None:
        """The units that the test set is a sample of, so that a comparison can allow for the noise of a finite test
        set. Called after `load`.

        Returns:
            At least two units, at most `tasks.units.MOST`; None where the task has none.
        """
        return None

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The primary metric of each example, as sum and count: over the split, the ratio of their totals is the
        metric. Needed only with `test_units`.

        Args:
            outputs: as for `measure`.
            batch: an evaluation batch.

        Returns:
            `[B, 2]`, float64: sums and counts.

        Raises:
            NotImplementedError: the task has no units.
        """
        raise NotImplementedError(f"{self.name} does not define unit_sums")

    def idle_options(self) -> Mapping[str, str]:
        """Options that change nothing, given the others: commands refuse them.

        Returns:
            By name, why it changes nothing: a phrase.
        """
        return {}

    def implied(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics that follow from others of a split, computed as `summarise` does: a record with another value is
        refused.

        Args:
            metrics: what `summarise` returned, or a record's values, in which some may be missing.

        Returns:
            Values by name of metric; empty where none follows from others.
        """
        return {}

    def keep_files(self, folder: Path) -> None:
        """Writes into a run's folder what the run needs later besides the options and the data, for example a trained
        tokenizer. Called once, after `load`.

        Args:
            folder: the run's folder.
        """
        return

    def use_files(self, folder: Path) -> None:
        """Reads what `keep_files` wrote, where there is something. Called before `load` when a run is resumed, and
        when its model is used without the data.

        Args:
            folder: the run's folder.
        """
        return

    def plot_examples(self, predict: Callable[[Tensor], Tensor], folder: Path) -> Path | None:
        """Draws a few test examples with a trained model's outputs, for people to look at. Called after the test.

        Args:
            predict: a batch's inputs to the model's outputs, fp32, both on the CPU.
            folder: where the picture is written.

        Returns:
            The picture's path, or None where the task draws nothing.
        """
        return None


class TextTask(Task):
    """A task over text: strings become token ids, and token ids stand for bytes."""

    unit = "sequences"

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text, also an empty one.

        Returns:
            At least one id: the first is the token that begins a document.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that token ids stand for.

        Args:
            ids: token ids; a single one may be a part of a character.

        Returns:
            UTF-8, unless the ids end within a character.
        """
