"""A contributed task, complete: sort a sequence of digits.

    3 1 2 1 | 1 1 2        inputs: n digits, then the sorted ones but the last
          1   1 2 3        targets: at every place from the last digit on, the next digit of the sorted sequence

Training passes over a fixed set of sequences; validation and test have their own. Try it:

    suite check examples/sorting.py:Sorting
    suite run --task examples/sorting.py:Sorting --mixer softmax --scale board
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.base import WHOLE, Batch, DataInfo, Metric, Shard, Split, Task, TaskOptions, TextInput
from tasks.randomness import EXAMPLES, generator, shuffled_batches

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
IGNORED = -100  # target where nothing is scored


class SortingOptions(TaskOptions):
    digits: int = Field(default=16, ge=2, le=1024, description="digits n to sort; a sequence has 2n - 1 tokens")
    values: int = Field(default=10, ge=2, le=1024, description="different digits")
    train_examples: int = Field(default=20_000, ge=1, description="training sequences")
    valid_examples: int = Field(default=500, ge=1, description="validation sequences")
    test_examples: int = Field(default=1_000, ge=1, description="test sequences")


class Sorting(Task):
    name = "sorting"
    domain = "recall"
    summary = "sort a sequence of digits (example)"
    protocol = "sorting/1"
    unit = "sequences"
    synthetic = True
    has_epochs = True
    Options = SortingOptions
    options: SortingOptions
    recipes = """
        [common.model]
        dim = 64
        depth = 2
        heads = 2
        ffn_width = 128
        [common.train]
        lr = 3e-3
        batch_size = 64

        [board.train]
        steps = 200
        [quick.train]
        steps = 1000
    """

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=self.options.values, length=2 * self.options.digits - 1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return Metric("accuracy", higher_is_better=True), Metric("loss", higher_is_better=False, unit="nats")

    def load(self) -> None:
        if not hasattr(self, "_digits"):
            self._digits = {split: self._draw(split) for split in SPLITS}

    def _draw(self, split: Split) -> Tensor:
        random = generator(EXAMPLES, SPLITS.index(split), 0)
        shape = (self.n_examples(split), self.options.digits)
        return torch.from_numpy(random.integers(self.options.values, size=shape))

    def n_examples(self, split: Split) -> int:
        return int(getattr(self.options, f"{split}_examples"))

    @property
    def fingerprint(self) -> str:
        self.load()
        return sha256(b"".join(self._digits[split].numpy().tobytes() for split in SPLITS)).hexdigest()

    def info(self) -> DataInfo:
        return DataInfo(
            source="drawn by a rule",
            licence="none needed: random digits",
            splits={split: self.n_examples(split) for split in SPLITS},
            unit=self.unit,
            fingerprint=self.fingerprint,
            embedded=True,
        )

    def _batch(self, digits_BN: Tensor) -> Batch:
        sorted_BN = digits_BN.sort(dim=1).values
        unscored = torch.full_like(digits_BN[:, 1:], IGNORED)
        return Batch(torch.cat([digits_BN, sorted_BN[:, :-1]], 1), torch.cat([unscored, sorted_BN], 1))

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        self.load()
        rows = shard.rows(batch_size)
        for index in shuffled_batches(self.n_examples("train"), batch_size, seed, start_step):
            yield self._batch(self._digits["train"][index[rows]])

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        self.load()
        for digits_BN in self._digits[split][shard.part(self.n_examples(split))].split(batch_size):
            yield self._batch(digits_BN)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        scored = batch.targets != IGNORED
        logits, targets = outputs[scored], batch.targets[scored]
        nats = cross_entropy(logits, targets, reduction="none").double().sum().item()
        correct = (logits.argmax(-1) == targets).sum().item()
        return {"accuracy": (correct, len(targets)), "loss": (nats, len(targets))}

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {name: total / count for name, (total, count) in sums.items()}
