"""What a check works with: the task under test, its batches, and a fixed model in place of a backbone.

A check is a function of a `Probe`. It goes from small settings to large ones, names each with `at`, and raises
`ViolationError` at the first that breaks the promise: so the setting reported last is the smallest that shows the
failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from tasks.base import WHOLE, Batch, ImageInput, Shard, Split, Task, TaskOptions, TextInput

Figure = int | float | str | bool
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
EVALUATED: tuple[Split, ...] = ("valid", "test")
EXAMPLES = 2_000  # larger splits are not read whole, unless slow checks are requested
VALUES = 2**26  # of the fixed model's outputs for one batch: 256 MB
TABLE = 2048  # tokens of the largest vocabulary for which the fixed model has a table of logits


class ViolationError(Exception):
    """The promise does not hold at the probe's setting."""


class NotApplicableError(Exception):
    """The check cannot be made on this task; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One promise: `sentence` holds when `function` returns. Slow checks are left out unless requested."""

    id: str
    sentence: str
    function: Callable[[Probe], None]
    slow: bool = False


REGISTERED: list[Check] = []


def check(id: str, sentence: str, slow: bool = False) -> Callable[[Callable[[Probe], None]], Callable[[Probe], None]]:
    """Decorator: adds a function to the contract."""

    def add(function: Callable[[Probe], None]) -> Callable[[Probe], None]:
        REGISTERED.append(Check(id, sentence, function, slow))
        return function

    return add


@dataclass
class Probe:
    """The task under test. `slow`: splits of any size are read."""

    cls: type[Task]
    options: TaskOptions
    data_dir: Path | None = None
    slow: bool = False
    setting: dict[str, Figure] = field(default_factory=dict)

    def new(self) -> Task:
        """Another instance with the same options, its data not loaded."""
        return self.cls(self.options, self.data_dir)

    @cached_property
    def task(self) -> Task:
        """The task, loaded."""
        made = self.new()
        made.load()
        return made

    def at(self, **setting: Figure) -> None:
        """Names the setting that is checked next."""
        self.setting = setting

    def require(self, holds: bool, reason: str, **figures: Figure) -> None:
        """Ends the check where the promise is broken at the present setting. The figures show by how much."""
        if not holds:
            self.setting |= figures
            raise ViolationError(reason)

    def not_applicable(self, reason: str) -> None:
        raise NotApplicableError(reason)

    def train(
        self, n: int, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> list[Batch]:
        """The training batches of n steps."""
        return list(islice(self.task.train_batches(seed, batch_size, start_step, workers, shard), n))

    def readable(self, splits: tuple[Split, ...], limit: int = EXAMPLES) -> list[Split]:
        """Those splits that are small enough to be read whole."""
        sizes = {split: self.task.n_examples(split) for split in splits}
        small = [split for split in splits if self.slow or sizes[split] <= limit]
        if not small:
            have = " and ".join(f"{split} has {size:,}" for split, size in sizes.items())
            self.not_applicable(f"more than {limit:,} examples: {have} (use options that make it smaller, or --slow)")
        return small

    def batch_sizes(self, *sizes: int) -> list[int]:
        """These sizes, the larger ones reduced where a batch of outputs would need too much memory."""
        most = max(2, VALUES // max(1, self._outputs_per_example))
        return sorted({min(size, most) for size in sizes})

    @property
    def _outputs_per_example(self) -> int:
        spec = self.task.spec
        if isinstance(spec, TextInput):
            return spec.length * spec.vocab
        if isinstance(spec, ImageInput):
            return spec.classes
        return spec.horizon * spec.channels * spec.outputs

    def outputs(self, batch: Batch) -> Tensor:
        """A fixed model: each example's outputs depend on its inputs alone, and differ between examples."""
        spec = self.task.spec
        if isinstance(spec, TextInput):
            return self._logits(spec.vocab, batch.inputs)
        if isinstance(spec, ImageInput):
            pixels = batch.inputs.flatten(1)
            return pixels[:, torch.arange(spec.classes) * 7919 % pixels.shape[1]]
        point = batch.inputs[:, -1:].expand(-1, spec.horizon, -1) * 0.5
        if spec.head == "point":
            return point
        if spec.head == "student-t":
            return torch.stack([point, 0.1 + point.abs(), 3 + point.abs()], dim=-1)
        return torch.stack([point + 0.1 * (i - spec.outputs // 2) for i in range(spec.outputs)], dim=-1)

    def _logits(self, vocab: int, tokens_BT: Tensor) -> Tensor:
        """`[B, T, vocab]`, computed value by value: a matrix product would round differently at each batch size."""
        generator = torch.Generator().manual_seed(7)
        if vocab <= TABLE:
            return torch.randn(vocab, vocab, generator=generator)[tokens_BT]
        of_input, of_output = torch.randn(2, vocab, generator=generator)
        return of_input[tokens_BT].unsqueeze(-1) * of_output

    def evaluate(self, split: Split, batch_size: int) -> tuple[int, dict[str, float]]:
        """How many examples of a split were evaluated, and the fixed model's metrics on them."""
        totals: dict[str, tuple[float, float]] = {}
        seen = 0
        for batch in self.task.eval_batches(split, batch_size):
            seen += batch.size
            for name, (total, count) in self.task.measure(self.outputs(batch), batch).items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = (before[0] + total, before[1] + count)
        return seen, self.task.summarise(totals)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal bit for bit."""
    return all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in ((one.inputs, other.inputs), (one.targets, other.targets))
    )


def joined(batches: list[Batch]) -> Batch:
    """Batches as one, in order."""
    return Batch(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))
