"""Ladders: one task with several sizes of the vocabulary or several lengths (rungs), trained on their mixture and
measured on each.

Zoology (arXiv 2312.04927) trains on mixtures of lengths and pairs and evaluates each. With pairs as rungs, all rungs of
one vocabulary were solved within 60 steps of each other, or none; vocabularies are solved one after the other.

R: rungs; B: sequences of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tasks.base import WHOLE, Batch, Metric, Shard, Split
from tasks.recall.base import IGNORED, RecallOptions, RecallTask, SequenceOptions

MOST_RUNGS = 16


class LadderOptions(SequenceOptions):
    """Options of a task that can be a ladder over one of its options."""

    rung_option: ClassVar[str]  # the option that differs between rungs
    rungs_are: ClassVar[str]  # in errors: "vocabularies of at least 4 tokens", with {} for the number

    ladder: str = Field(default="", max_length=200, json_schema_extra={"introduced_with": ""})

    @property
    def least_rung(self) -> int:
        """The smallest value that a sequence can be drawn with."""
        return 1

    @field_validator("ladder")
    @classmethod
    def _written_one_way(cls, text: str) -> str:
        try:
            return ",".join(str(int(part)) for part in text.split(",")) if text.strip() else ""
        except ValueError:
            raise ValueError("a ladder is whole numbers with commas between them, for example 32,128,512") from None

    @property
    def rungs(self) -> tuple[int, ...]:
        """The values of `rung_option`; none without a ladder."""
        return tuple(int(part) for part in self.ladder.split(",") if part)

    @model_validator(mode="after")
    def _is_a_ladder(self) -> Self:
        rungs, option = self.rungs, self.rung_option
        if not rungs:
            return self
        rises = all(low < high for low, high in pairwise(rungs))
        if not 2 <= len(rungs) <= MOST_RUNGS or not rises or rungs[0] < self.least_rung:
            raise ValueError(
                f"ladder {self.ladder} must be 2 to {MOST_RUNGS} rising numbers, "
                f"{self.rungs_are.format(self.least_rung)}"
            )
        if rungs[-1] != (last := getattr(self, option)):
            raise ValueError(
                f"ladder {self.ladder} must end at {option}, which is {last}: set both, or ladder= for {option} alone"
            )
        for split in ("train", "valid", "test"):
            if (n := getattr(self, f"{split}_examples")) % len(rungs):
                raise ValueError(
                    f"{split}_examples {n} must be a multiple of {len(rungs)}, for equally many sequences of each rung"
                )
        return self

    def of_rung(self, rung: int) -> Self:
        """The options of one rung alone.

        Args:
            rung: its value of `rung_option`.

        Returns:
            Options without a ladder, with its part of the examples.
        """
        shares = {
            f"{s}_examples": getattr(self, f"{s}_examples") // len(self.rungs) for s in ("train", "valid", "test")
        }
        return type(self).model_validate({**dict(self), **shares, "ladder": "", self.rung_option: rung})


class VocabularyLadderOptions(LadderOptions, RecallOptions):
    """Options of a recall task that can be a ladder of vocabularies."""

    rung_option = "vocab"
    rungs_are = "vocabularies of at least {} tokens"

    ladder: str = Field(
        default="",
        max_length=200,
        json_schema_extra={"introduced_with": ""},
        description="vocabularies of a ladder of difficulties, rising, such as 32,128,512, in equal parts; the last "
        "is `vocab`; accuracy is the mean over them; empty: `vocab` alone",
    )

    @property
    def least_rung(self) -> int:
        return 4

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if any(rung % 2 for rung in self.rungs):
            raise ValueError(f"ladder {self.ladder} must be even numbers: half of a vocabulary are keys")
        return self


@dataclass(frozen=True)
class RungBatch(Batch):
    """`rung_B`: the place of each sequence's rung in the ladder."""

    rung_B: Tensor

    def to(self, device: Any) -> RungBatch:
        moved = super().to(device)
        return RungBatch(moved.inputs, moved.targets, self.rung_B.to(device, non_blocking=True))


class LadderTask(RecallTask):
    """A task that its option `ladder` makes a mixture of rungs in equal parts: vocabularies, or what its options say.

    Sequence i of every split is of rung i mod R; the sequences of a rung are those of the task with that rung alone,
    `placed` in the ladder's sequences.

    With a ladder, `accuracy` is the mean over the rungs of the accuracy on each, correct over scored tokens of all its
    sequences, and `accuracy_<rung>` is that of one rung. `class_accuracy` and `loss` count tokens of all rungs alike.
    Without one, nothing differs from a `RecallTask`.
    """

    @property
    def filler(self) -> int:
        """The token after the end of a sequence that is shorter than the others; no scored position sees it."""
        return 0

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The ladder, rising; none for a task of one difficulty."""
        return self.options.rungs if isinstance(self.options, LadderOptions) else ()

    def placed(self, tokens: Tensor, rung: int, fill: int) -> Tensor:
        """A rung's own tokens in the ladder's vocabulary: its keys are the first keys, its values the first values,
        which come after all keys.

        Args:
            tokens: inputs or targets `[n, T]`, -100 where a target is not scored.
            rung: the rung's own vocabulary.
            fill: the token, or target, of places that the rung does not have; here it has all.

        Returns:
            `[n, T]`.
        """
        assert isinstance(self.options, RecallOptions)
        return torch.where(tokens < rung // 2, tokens, tokens + self.options.vocab // 2 - rung // 2)

    def _split(self, split: Split) -> tuple[Tensor, Tensor]:
        options = self.options
        if split not in self._data and isinstance(options, LadderOptions) and self.rungs:
            n, R = self.n_examples(split), len(self.rungs)
            mixed = (
                torch.empty(n, self.spec.length, dtype=torch.int32),
                torch.empty(n, self.spec.length, dtype=torch.int32),
            )
            for place, rung in enumerate(self.rungs):
                alone = type(self)(options.of_rung(rung))
                for whole, part, fill in zip(mixed, alone._split(split), (self.filler, IGNORED), strict=True):
                    whole[place::R] = self.placed(part, rung, fill)
            self._data[split] = mixed
        return super()._split(split)

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        batches = super().eval_batches(split, batch_size, workers, shard)
        if not self.rungs:
            yield from batches
            return
        seen = shard.part(self.n_examples(split)).start
        for batch in batches:
            rung_B = torch.arange(seen, seen + batch.size) % len(self.rungs)
            yield RungBatch(batch.inputs, batch.targets, rung_B)
            seen += batch.size

    @property
    def metrics(self) -> tuple[Metric, ...]:
        first, *others = super().metrics
        return first, *(Metric(name, higher_is_better=True) for name in self._names), *others

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        """The sums of every recall task, and `rung/<rung>`: correct and scored tokens of its sequences."""
        sums = super().measure(outputs, batch)
        if not self.rungs:
            return sums
        assert isinstance(batch, RungBatch)
        logits, targets = self.scored(outputs, batch)
        rung = batch.rung_B[(batch.targets != IGNORED).nonzero()[:, 0]]
        correct = torch.bincount(rung[logits.argmax(-1) == targets], minlength=len(self.rungs)).tolist()
        scored = torch.bincount(rung, minlength=len(self.rungs)).tolist()
        return sums | {
            f"rung/{r}": (float(c), float(n)) for r, c, n in zip(self.rungs, correct, scored, strict=True) if n
        }

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Weighted so that every rung counts the same."""
        sums_B2 = super().unit_sums(outputs, batch)
        if not self.rungs:
            return sums_B2
        assert isinstance(batch, RungBatch)
        return sums_B2 * self._weights.to(sums_B2)[batch.rung_B][:, None]

    @cached_property
    def _weights(self) -> Tensor:
        """Of each rung, for the test split: the mean number of scored tokens per rung, divided by its own."""
        scored = (self._split("test")[1] != IGNORED).sum(-1)
        of_rungs = torch.stack([scored[place :: len(self.rungs)].sum() for place in range(len(self.rungs))]).double()
        return of_rungs.mean() / of_rungs

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        found = super().summarise(sums)
        if not self.rungs:
            return found
        of_rungs = {name: sums[f"rung/{rung}"] for name, rung in zip(self._names, self.rungs, strict=True)}
        found |= {name: correct / scored for name, (correct, scored) in of_rungs.items()}
        return found | self.implied(found)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"accuracy_{rung}" for rung in self.rungs)

    def implied(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """With a ladder, `accuracy`: the mean over the rungs."""
        if not self.rungs or not metrics.keys() >= set(self._names):
            return {}
        return {"accuracy": sum(metrics[name] for name in self._names) / len(self.rungs)}
