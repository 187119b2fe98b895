"""Common parts of the recall tasks: sequences drawn by a rule, a loss on the scored tokens, and their accuracy, overall
and by class.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tasks.base import (
    WHOLE,
    Batch,
    DataError,
    DataInfo,
    Metric,
    SampledUnits,
    Shard,
    Split,
    Task,
    TaskOptions,
    TextInput,
)
from tasks.randomness import EXAMPLES, generator, shuffled_batches
from tasks.recall.sampling import SPLITS, Ints
from tasks.units import grouped

IGNORED = -100  # target of an unscored token
CHUNK = 512  # sequences per generator, so that the first ones of a split do not depend on its size


class SequenceOptions(TaskOptions):
    """Options of every task of this package. All of them are part of a run's identity."""

    length: int = Field(default=128, ge=2, le=65536, description="tokens T of a sequence")
    train_examples: int = Field(default=12800, ge=1, description="training sequences; each epoch shuffles them again")
    valid_examples: int = Field(default=1280, ge=1, description="validation sequences")
    test_examples: int = Field(default=1280, ge=1, description="test sequences")
    data_seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the data; independent of the run's seed")


class RecallOptions(SequenceOptions):
    """Options of a task whose vocabulary has any size."""

    vocab: int = Field(default=16, ge=4, le=2**20, description="tokens of the task's own vocabulary")


class RecallTask(Task):
    """Sequences drawn by a rule; no files are read. Each split has its own random stream.

    The sequences of a split are a function of (options, data seed, split). They are drawn on first use and kept in
    memory. Targets are -100 where a token is not scored; the loss is the mean over the scored tokens of a batch.

    `accuracy` is the number of correct tokens over that of scored tokens in the split. `class_accuracy` is the macro
    average: the mean over target classes of the accuracy within each. A class that is predicted but never a target does
    not count; some libraries count it as 0.
    """

    domain = "recall"
    unit = "sequences"
    synthetic = True
    has_epochs = True
    source: ClassVar[str]  # the paper
    notes: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[TaskOptions]] = RecallOptions
    options: SequenceOptions

    def __init__(self, options: TaskOptions | None = None, data_dir: Path | None = None) -> None:
        if data_dir is not None:
            raise DataError(
                f"{self.name} draws its data by a rule, so --data-dir {data_dir} would have no effect; leave it out"
            )
        super().__init__(options, data_dir)
        self._data: dict[Split, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def draw(self, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        """n sequences and their targets, both `[n, T]`."""

    def draw_split(self, split: Split, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
        """`draw` for a split, for tasks whose training differs from evaluation."""
        return self.draw(random, n)

    @property
    def spec(self) -> TextInput:
        """The vocabulary is the option; a task without that option defines its own."""
        assert isinstance(self.options, RecallOptions)
        return TextInput(vocab=self.options.vocab, length=self.options.length)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("accuracy", higher_is_better=True),
            Metric("class_accuracy", higher_is_better=True),
            Metric("loss", higher_is_better=False, unit="nats"),
        )

    def n_examples(self, split: Split) -> int:
        o = self.options
        return {"train": o.train_examples, "valid": o.valid_examples, "test": o.test_examples}[split]

    def load(self) -> None:
        for split in SPLITS:
            self._split(split)

    def _split(self, split: Split) -> tuple[Tensor, Tensor]:
        if split not in self._data:
            n, stream = self.n_examples(split), SPLITS.index(split)
            inputs = torch.empty(n, self.spec.length, dtype=torch.int32)
            targets = torch.empty_like(inputs)
            for chunk, at in enumerate(range(0, n, CHUNK)):
                drawn = self.draw_split(split, generator(EXAMPLES, self.options.data_seed, stream, chunk), CHUNK)
                for kept, made in zip((inputs, targets), drawn, strict=True):
                    kept[at : at + CHUNK] = torch.from_numpy(made[: n - at])
            self._data[split] = inputs, targets
        return self._data[split]

    @property
    def fingerprint(self) -> str:
        self.load()
        content = sha256()
        for split in SPLITS:
            for tensor in self._data[split]:
                content.update(tensor.numpy().astype("<i4", copy=False).tobytes())
        return content.hexdigest()

    def info(self) -> DataInfo:
        self.load()
        return DataInfo(
            source=f"drawn by the rule of {self.source}",
            licence="none needed: random sequences",
            splits={split: self.n_examples(split) for split in SPLITS},
            unit="sequences",
            fingerprint=self.fingerprint,
            embedded=True,
            notes=self.notes,
            extra={"scored_tokens": {split: int((self._data[split][1] != IGNORED).sum()) for split in SPLITS}},
        )

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        inputs, targets = self._split("train")
        rows = shard.rows(batch_size)
        for index in shuffled_batches(len(inputs), batch_size, seed, start_step):
            yield Batch(inputs[index[rows]].long(), targets[index[rows]].long())

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        inputs, targets = (part[shard.part(len(part))] for part in self._split(split))
        for at in range(0, len(inputs), batch_size):
            yield Batch(inputs[at : at + batch_size].long(), targets[at : at + batch_size].long())

    def scored(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits `[N, classes]` and targets `[N]` of the N scored tokens of a batch."""
        kept = batch.targets != IGNORED
        return outputs[kept].float(), batch.targets[kept]

    def scored_values(self, batch: Batch) -> float:
        return float((batch.targets != IGNORED).sum().item())

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(*self.scored(outputs, batch))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        """`nats` over the scored tokens, and `class/<id>` for each target class: correct tokens and all of them."""
        logits, targets = self.scored(outputs, batch)
        nats = F.cross_entropy(logits, targets, reduction="none").double().sum().item()
        classes, place = targets.unique(return_inverse=True)
        correct = torch.bincount(place[logits.argmax(-1) == targets], minlength=len(classes))
        scored = torch.bincount(place, minlength=len(classes))
        found = {
            f"class/{c}": (float(r), float(n))
            for c, r, n in zip(classes.tolist(), correct.tolist(), scored.tolist(), strict=True)
        }
        return {"nats": (nats, float(len(targets))), **found}

    def test_units(self) -> SampledUnits | None:
        return grouped("sequences", np.arange(self.n_examples("test")))

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        scored_BT = batch.targets != IGNORED
        correct_BT = scored_BT & (outputs.float().argmax(-1) == batch.targets)
        return torch.stack([correct_BT.sum(-1), scored_BT.sum(-1)], -1).double()

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        nats, count = sums["nats"]
        classes = [value for name, value in sorted(sums.items()) if name.startswith("class/")]
        return {
            "accuracy": sum(correct for correct, _ in classes) / count,
            "class_accuracy": sum(correct / scored for correct, scored in classes) / len(classes),
            "loss": nats / count,
        }
