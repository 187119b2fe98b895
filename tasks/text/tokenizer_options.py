"""The tokenizer of a language task: its options, and opening it. Trained ones are cached per corpus and options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from tasks.base import DataError, TaskOptions
from tasks.storage import cache, hub
from tasks.text.documents import Corpus, Progress
from tasks.text.tokenizers import (
    BYTES_VOCAB,
    GPT2_REPO,
    GPT2_VOCAB,
    MIN_BPE_VOCAB,
    BpeTokenizer,
    ByteTokenizer,
    Tokenizer,
    read_definition,
    train_bpe,
)

SAMPLE_BYTES = 64 * 2**20  # of text from the beginning of the training part, on which BPE is trained
TOKENIZER_FILE = "tokenizer.json"
HELP = "bytes, bpe (trained on the training part), gpt2, or the path of a tokenizer.json"


class TokenizerOptions(TaskOptions):
    """`vocab` is filled in, so that a model can be built without data. A file is identified by its content, not by its
    path.
    """

    tokenizer: str = Field(default="bytes", description=HELP)
    vocab: int = Field(
        default=0, ge=0, le=2**20, description="number of token ids: a choice for bpe, fixed by the other tokenizers"
    )
    tokenizer_sha256: str = Field(default="", pattern="^[0-9a-f]*$", description="of a tokenizer.json; filled in")
    usual_vocab: ClassVar[int] = 8192  # of bpe

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        name = str(given.get("tokenizer", cls.model_fields["tokenizer"].default))
        vocab, digest = str(given.get("vocab") or 0), str(given.get("tokenizer_sha256") or "")
        if name == "bpe":
            own_vocab, own_digest = vocab if vocab != "0" else str(cls.usual_vocab), ""
            if own_vocab.isdigit() and int(own_vocab) < MIN_BPE_VOCAB:
                raise ValueError(
                    f"vocab={vocab} is too small for bpe: at least {MIN_BPE_VOCAB} is needed (256 bytes, end of text, "
                    "one merge)"
                )
        else:
            own_vocab, own_digest = _vocab_and_digest(name, vocab, digest)
            if digest not in ("", own_digest):
                raise ValueError(_changed_file(name, digest))
            if vocab not in ("0", own_vocab):
                raise ValueError(_wrong_vocab(name, own_vocab, vocab))
        return {**given, "tokenizer": name, "vocab": own_vocab, "tokenizer_sha256": own_digest}

    def portable(self) -> dict[str, Any]:
        content = super().portable()
        return {**content, "tokenizer": TOKENIZER_FILE} if self.tokenizer_sha256 else content


def _vocab_and_digest(name: str, vocab: str, digest: str) -> tuple[str, str]:
    """The vocabulary size of a tokenizer that is not trained here, and the sha256 of its file if it has one."""
    if name == "bytes":
        return str(BYTES_VOCAB), ""
    if name == "gpt2":
        return str(GPT2_VOCAB), ""
    if digest and vocab != "0":
        return vocab, digest  # of a record: the values hold wherever the file is now; opening it compares them
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"unknown tokenizer {name!r}; choose bytes, bpe, gpt2 or the path of a tokenizer.json")
    definition = read_definition(path)
    return str(BpeTokenizer(definition, name=name).vocab), sha256(definition.encode()).hexdigest()


def _changed_file(name: str, digest: str) -> str:
    return f"the tokenizer {name!r} has changed (its sha256 was {digest[:12]}…); pass the original file"


def _wrong_vocab(name: str, own: int | str, given: int | str) -> str:
    return f"vocab={given} does not fit the tokenizer {name!r}, which has {own} ids; leave it out (--set vocab=0)"


def is_ready(options: TokenizerOptions, corpus: Corpus) -> bool:
    """Whether the tokenizer can be opened without training or downloading it."""
    if options.tokenizer == "gpt2":
        return hub.cached(GPT2_REPO, TOKENIZER_FILE, kind="model") is not None
    return options.tokenizer != "bpe" or _trained_file(options, corpus).is_file()


def open_tokenizer(options: TokenizerOptions, corpus: Corpus, progress: Progress | None = None) -> Tokenizer:
    """The tokenizer that the options name; BPE is trained on the corpus unless it is in the cache. Raises DataError.

    `progress(done, total)` is called with the bytes of text that training has read.
    """
    if options.tokenizer == "bytes":
        return ByteTokenizer()
    if options.tokenizer == "gpt2":
        return BpeTokenizer(read_definition(hub.fetch(GPT2_REPO, TOKENIZER_FILE, kind="model")), name="gpt2")
    if options.tokenizer != "bpe":
        return _open_file(options)
    path = _trained_file(options, corpus)
    if not path.is_file():
        with cache.lock(path.with_suffix(".lock")):
            if not path.is_file():
                cache.write_text(path, train_bpe(_training_text(corpus, progress), options.vocab))
    return BpeTokenizer(read_definition(path), options.vocab)


def _open_file(options: TokenizerOptions) -> Tokenizer:
    """Raises DataError if the file has changed since the options were made (in another process, for example)."""
    name, digest = options.tokenizer, options.tokenizer_sha256
    definition = read_definition(Path(name))
    if sha256(definition.encode()).hexdigest() != digest:
        raise DataError(_changed_file(name, digest))
    tokenizer = BpeTokenizer(definition, name=name)
    if tokenizer.vocab != options.vocab:
        raise DataError(_wrong_vocab(name, tokenizer.vocab, options.vocab))
    return tokenizer


def saved_tokenizer(options: TokenizerOptions, path: Path) -> Tokenizer:
    """The tokenizer from the file in a run's folder."""
    return BpeTokenizer(read_definition(path), options.vocab if options.tokenizer == "bpe" else 0)


def _trained_file(options: TokenizerOptions, corpus: Corpus) -> Path:
    key = sha256(json.dumps([corpus.key, options.vocab, SAMPLE_BYTES], sort_keys=True).encode()).hexdigest()
    return cache.folder("tokenizers") / f"bpe-{options.vocab}-{key[:16]}.json"


def _training_text(corpus: Corpus, progress: Progress | None) -> Iterator[str]:
    """The beginning of the training part, and nothing else."""
    seen, total = 0, min(corpus.size, SAMPLE_BYTES)
    for block in corpus.blocks():
        for fragment in block.fragments:
            if fragment.split == "train":
                yield fragment.text
                seen += len(fragment.text.encode("utf-8", "replace"))
                if seen >= SAMPLE_BYTES:
                    return
        if progress is not None:
            progress(min(seen, total), total)
    if not seen:
        raise DataError(
            "bpe cannot be trained: the corpus has no training text; add some, or use --set tokenizer=bytes"
        )
