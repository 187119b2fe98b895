"""Language modelling over a tokenised corpus: windows of a memory map, scored in bits per byte and perplexity."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tasks.base import (
    WHOLE,
    Batch,
    DataError,
    DataInfo,
    Metric,
    SampledUnits,
    Shard,
    Split,
    TaskOptions,
    TextInput,
    TextTask,
)
from tasks.randomness import WINDOWS, evenly_spread, generator, permuted
from tasks.storage import cache
from tasks.text.documents import Corpus, Progress
from tasks.text.scores import (
    IGNORED,
    WordCounter,
    bits_by_row,
    bits_per_byte,
    count_scored,
    mean_loss,
    perplexity,
    total_nats,
)
from tasks.text.token_cache import FORMAT, CacheState, TokenCache, estimate
from tasks.text.tokenizer_options import TOKENIZER_FILE, TokenizerOptions, is_ready, open_tokenizer, saved_tokenizer
from tasks.text.tokenizers import ByteTokenizer, Tokenizer
from tasks.units import grouped, parts

#: A test text of fewer documents is cut into consecutive parts for the noise of a finite test set.
FEW_DOCUMENTS, TEXT_PARTS = 8, 32


class CorpusOptions(TokenizerOptions):
    """Options of every corpus. All of them are part of a run's identity."""

    length: int = Field(default=256, ge=1, le=65536, description="context T in tokens")
    valid_limit: int = Field(
        default=256, ge=0, description="validation windows scored, evenly spread over the split; 0: all"
    )
    test_limit: int = Field(default=0, ge=0, description="test windows scored, evenly spread over the split; 0: all")


class CorpusTask(TextTask):
    """Documents laid end to end, with an end-of-text token before the first and after each.

    Training: an epoch is every window of T + 1 tokens that begins at a multiple of T, once, in an order drawn from
    (seed, epoch). The first window begins at a position below T, also drawn, so that the window borders move between
    epochs. Windows may span several documents.

    Evaluation: every token of a split except the first, end-of-text tokens included, is predicted exactly once, in
    windows of T, the last one shorter (padded; the padding is not scored). A token sees the tokens of its own window
    before it.

    bits_per_byte: nats of all scored tokens, divided by ln 2 and by the bytes of text of those tokens. It can be
    compared between tokenizers; perplexity, which is per token, cannot.
    """

    domain = "language"
    needs_data_dir = True
    Options: ClassVar[type[TaskOptions]] = CorpusOptions
    options: CorpusOptions
    counts_words: ClassVar[bool] = False
    licence: ClassVar[str]
    _tokenizer: Tokenizer | None = None
    _state: CacheState | None = None

    @abstractmethod
    def _open_corpus(self) -> Corpus:
        """Lists the documents' files without reading them. Raises DataError if there are none."""

    @property
    @abstractmethod
    def _source(self) -> tuple[str, tuple[str, ...]]:
        """Where the text comes from, and notes about it. Needs no data."""

    @property
    def _limit(self) -> int:
        """Number of training tokens in use, from the beginning; 0: all."""
        return 0

    @property
    def spec(self) -> TextInput:
        return TextInput(vocab=self.options.vocab, length=self.options.length)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        words = (Metric("word_perplexity", higher_is_better=False, unit="per word"),) if self.counts_words else ()
        return (
            Metric("bits_per_byte", higher_is_better=False, unit="bits/byte"),
            Metric("perplexity", higher_is_better=False, unit="per token"),
            *words,
            Metric("loss", higher_is_better=False, unit="nats/token"),
        )

    # --- data

    @cached_property
    def _corpus(self) -> Corpus:
        return self._open_corpus()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, opened or trained at its first use."""
        return self._open_tokenizer(None)

    def _open_tokenizer(self, progress: Progress | None) -> Tokenizer:
        if self._tokenizer is None:
            is_bytes = self.options.tokenizer == "bytes"
            self._tokenizer = ByteTokenizer() if is_bytes else open_tokenizer(self.options, self._corpus, progress)
            if self._tokenizer.vocab > self.options.vocab:
                raise DataError(
                    f"tokenizer {self.options.tokenizer!r} has {self._tokenizer.vocab} ids, expected are "
                    f"{self.options.vocab}; restore its original file"
                )
        return self._tokenizer

    @cached_property
    def _cache(self) -> TokenCache:
        key = sha256(
            json.dumps([FORMAT, self.protocol, self._corpus.key, self.tokenizer.fingerprint], sort_keys=True).encode()
        ).hexdigest()
        return TokenCache(cache.folder("tokens", f"{self.name}-{key[:16]}"), self._corpus, self.tokenizer, self._limit)

    def load(self) -> None:
        self._load(None)

    def _load(self, progress: Progress | None) -> CacheState:
        if self._state is None:
            self._open_tokenizer(progress)
            state = self._cache.open(progress)
            if self._cache.length("train") <= self._limit:
                available = self._cache.length("train") - 1
                raise DataError(
                    f"{self.name}: tokens={self._limit:,} is more than the {available:,} training tokens of the data; "
                    f"pass --set tokens={available} or less"
                )
            for split, minimum in (("train", 2 * self.options.length), ("valid", 1), ("test", 1)):
                tokens = self._cache.length(split) - 1  # type: ignore[arg-type]
                if tokens < minimum:
                    raise DataError(self._too_short(split, tokens, minimum))
            self._state = state
        return self._state

    def _too_short(self, split: str, tokens: int, minimum: int) -> str:
        why = " (twice the context length)" if split == "train" else ""
        return f"{self.name}: the {split} part has {tokens:,} tokens, at least {minimum:,} are needed{why}"

    def prepare(self, progress: Progress | None = None) -> None:
        state = self._load(progress)
        if self._cache.digest() != state.fingerprints[self._cache.fingerprint_key]:
            raise DataError(f"the token files in {self._cache.folder} are damaged; delete the folder and prepare again")

    def prepare_note(self) -> str:
        needed = self._bytes_needed()
        return f"{self.name}: {self._disk_note(needed)}" if needed else ""

    def _disk_note(self, needed: int) -> str:
        return f"about {max(needed / 1e6, 0.1):,.1f} MB of tokens will be written to {cache.folder('tokens')}"

    def _bytes_needed(self) -> int:
        """Approximate bytes of disk that are still to be written."""
        if self._tokenizer is None and not is_ready(self.options, self._corpus):
            return estimate(self.options.vocab, self._corpus.size, self._limit)
        return self._cache.bytes_needed()

    @property
    def fingerprint(self) -> str:
        return self._load(None).fingerprints[self._cache.fingerprint_key]

    def info(self) -> DataInfo:
        source, notes = self._source
        common: dict[str, Any] = {"source": source, "licence": self.licence, "unit": "tokens", "embedded": False}
        if self._state is None and not self._is_local():
            return DataInfo(**common, splits={}, fingerprint="", notes=notes)
        if self._state is None and (needed := self._bytes_needed()):
            size = {"bytes_at_most": self._corpus.size}
            missing = f"not prepared yet; run: suite data prepare {self.name} (a run does it too): "
            return DataInfo(
                **common, splits={}, fingerprint="", notes=(missing + self._disk_note(needed), *notes), extra=size
            )
        return self._prepared_info(common, notes)

    def _prepared_info(self, common: Mapping[str, Any], notes: Sequence[str]) -> DataInfo:
        state, from_file = self._load(None), self.options.tokenizer_sha256
        complete = [split for split in state.counts if split != "train" or not self._limit]
        return DataInfo(
            **common,
            splits={split: self._cache.length(split) - 1 for split in state.counts},
            fingerprint=self.fingerprint,
            notes=(*notes, f"token files: {self._cache.folder}"),
            extra={
                "tokenizer": self.tokenizer.fingerprint[:16] if from_file else self.options.tokenizer,
                "vocabulary": self.options.vocab,
                "bytes": {split: state.counts[split].bytes for split in complete},
                "documents": {split: state.counts[split].documents for split in complete},
                **self._corpus.origin(state.source),
            },
        )

    def _is_local(self) -> bool:
        """Whether the text is on this machine, so that describing it downloads nothing."""
        return self.data_dir is not None

    # --- batches

    def train_batches(
        self, seed: int, batch_size: int, start_step: int = 0, workers: int = 0, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        self.load()
        mine, step = shard.rows(batch_size), start_step
        while True:
            rows = np.arange(step * batch_size, (step + 1) * batch_size)[mine]
            window = torch.from_numpy(
                self._cache.files["train"].windows(self.train_starts(seed, rows), self.options.length + 1)
            )
            yield Batch(window[:, :-1], window[:, 1:])
            step += 1

    def train_starts(self, seed: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """First tokens of the windows at positions `rows` `[n]` of the endless stream of a seed."""
        T = self.options.length
        per_epoch = (self._cache.length("train") - T) // T
        starts = np.empty_like(rows)
        for epoch in np.unique(rows // per_epoch).tolist():
            here = rows // per_epoch == epoch
            phase = int(generator(WINDOWS, seed, epoch).integers(T))
            starts[here] = phase + T * permuted(rows[here] % per_epoch, per_epoch, seed, epoch)
        return starts

    def _eval_starts(self, split: Split) -> NDArray[np.int64]:
        limit = {"valid": self.options.valid_limit, "test": self.options.test_limit, "train": 0}[split]
        windows = math.ceil((self._cache.length(split) - 1) / self.options.length)
        return evenly_spread(windows, limit) * self.options.length

    def eval_batches(self, split: Split, batch_size: int, workers: int = 0, shard: Shard = WHOLE) -> Iterator[Batch]:
        self.load()
        starts, end = self._eval_starts(split), self._cache.length(split)
        starts = starts[shard.part(len(starts))]
        for at in range(0, len(starts), batch_size):
            first = starts[at : at + batch_size]
            window = self._cache.files[split].windows(first, self.options.length + 1)
            places = first[:, None] + np.arange(window.shape[1])
            window[places >= end] = -1  # the tokens in use may end before the file does
            targets = np.where(window[:, 1:] < 0, IGNORED, window[:, 1:])
            yield Batch(torch.from_numpy(np.maximum(window[:, :-1], 0)), torch.from_numpy(targets))

    def n_examples(self, split: Split) -> int:
        self.load()
        return len(self._eval_starts(split))

    # --- text and scores

    def encode(self, text: str) -> list[int]:
        return [self.tokenizer.end, *self.tokenizer.encode([text])[0].tolist()]

    def decode(self, ids: Sequence[int]) -> bytes:
        return self.tokenizer.decode(i for i in ids if i < len(self.tokenizer.token_bytes))

    def keep_files(self, folder: Path) -> None:
        if self.options.tokenizer != "bytes":
            file, definition = folder / TOKENIZER_FILE, self.tokenizer.definition
            cache.write_atomically(file, lambda path: path.write_text(definition, "utf-8"))

    def use_files(self, folder: Path) -> None:
        if self._tokenizer is None and (folder / TOKENIZER_FILE).is_file():
            self._tokenizer = saved_tokenizer(self.options, folder / TOKENIZER_FILE)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return mean_loss(outputs, batch.targets)

    def scored_values(self, batch: Batch) -> float:
        return count_scored(batch.targets)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, tuple[float, float]]:
        inputs, targets = batch.inputs.cpu().numpy(), batch.targets.cpu().numpy()
        scored = targets != IGNORED
        count = float(scored.sum())
        sums = {
            "nats": (total_nats(outputs, batch.targets), count),
            "bytes": (float(self._token_sizes[targets[scored]].sum()), count),
        }
        if self.counts_words:
            sums["words"] = (float(self._word_counter.count(inputs[scored], targets[scored])), count)
        return sums

    def test_units(self) -> SampledUnits | None:
        """Documents: a window belongs to the one in which it begins. Parts of the text where documents are few."""
        self.load()
        starts = self._eval_starts("test")
        ends = self._cache.files["test"].places_of(self.tokenizer.end)
        documents = grouped("documents", np.searchsorted(ends, starts, side="right"))
        few = documents is None or documents.of_example.max() + 1 < FEW_DOCUMENTS
        return parts(len(starts), TEXT_PARTS) if few else documents

    def unit_sums(self, outputs: Tensor, batch: Batch) -> Tensor:
        targets = batch.targets.cpu().numpy()
        bytes_B = (self._token_sizes[targets] * (targets != IGNORED)).sum(-1)
        bits_B = bits_by_row(outputs, batch.targets)
        return torch.stack([bits_B, torch.from_numpy(bytes_B).to(bits_B)], -1)

    @cached_property
    def _token_sizes(self) -> NDArray[np.int64]:
        return np.array([len(token) for token in self.tokenizer.token_bytes], dtype=np.int64)

    @cached_property
    def _word_counter(self) -> WordCounter:
        return WordCounter(self.tokenizer.token_bytes)

    def summarise(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        nats, count = sums["nats"]
        scores = {
            "bits_per_byte": bits_per_byte(nats, max(sums["bytes"][0], 1.0)),
            "perplexity": perplexity(nats / count),
        }
        if self.counts_words:
            scores["word_perplexity"] = perplexity(nats / max(sums["words"][0], 1.0))
        return {**scores, "loss": nats / count}

    def implied(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The perplexity follows from the loss."""
        return {"perplexity": perplexity(metrics["loss"])} if "loss" in metrics else {}
